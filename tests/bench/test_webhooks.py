"""The benchmark of webhooks: its receiver, its options, and each of its parts on the smallest numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from bench import receiver as receiving
from bench.rendering import render
from bench.report import Report
from bench.system import System, receiver, running
from bench.webhook.options import PARTS, WebhookBenchOptions
from bench.webhook.targets import TARGETS
from bench.webhooks import MEASURES

TINY = WebhookBenchOptions(workers=1, connections=8, rate=100.0, events=500, endpoints=50).made_quick()
NEEDS_BEFORE = {"settle, none subscribe", "end to end, none subscribe"}  # measured beside another version only

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def bench_system() -> Iterator[System]:
    with running() as system:
        yield system


@pytest.mark.parametrize("letter", PARTS)
def test_a_part_finds_the_figures_that_its_targets_ask_for(bench_system: System, letter: str) -> None:
    part = MEASURES[letter](bench_system, TINY)
    for target in TARGETS:
        if target.letter == letter and not target.figure.startswith(tuple(NEEDS_BEFORE)):
            assert part.find(target.figure) is not None, [figure.name for figure in part.figures]
    report = Report(machine={"cores": "1"}, quick=True, parts=[part])
    assert json.loads(json.dumps(report.to_json()))["parts"][letter]["figures"]
    assert f"{letter}. {part.title}" in render(report, TARGETS)


def test_the_receiver_keeps_a_journal_of_the_requests(bench_system: System) -> None:
    with receiver(bench_system) as target:
        body = b'{"id":"evt_1","type":"payment.succeeded","timestamp":"2026-11-22T01:19:52.500000Z"}'
        request = Request(f"{target.url}/a/hook", data=body, headers={"webhook-id": "evt_1"})
        with urlopen(request, timeout=20) as answer:
            assert answer.status == 204
        [arrival] = receiving.arrivals(target.url)
        assert (arrival.path, arrival.id, arrival.changed_s) == ("/a/hook", "evt_1", 1795310392.5)
        assert arrival.age_ms == pytest.approx((arrival.arrived_s - 1795310392.5) * 1000)
        receiving.clear(target.url)
        assert receiving.count(target.url) == 0


@pytest.mark.parametrize(
    ("changed", "refusal"),
    [
        ({"only": "a,z"}, "no part z"),
        ({"rounds": 0}, "at least 1"),
        ({"seconds": 0.5}, "a second"),
        ({"before": Path("/nowhere")}, "no checkout"),
    ],
)
def test_options_that_cannot_be_run_are_refused(changed: dict[str, object], refusal: str) -> None:
    with pytest.raises(ValueError, match=refusal):
        WebhookBenchOptions(**changed)  # type: ignore[arg-type]  # of several types, on purpose
