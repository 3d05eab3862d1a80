"""Every part runs, on the smallest numbers, and finds the figures that its targets ask for. What they are is no matter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import sizing
from bench.options import BenchOptions
from bench.parts import accept, end_to_end, growth, library, light
from bench.rendering import render
from bench.report import Part, Report
from bench.system import System, running
from bench.targets import TARGETS

TINY = BenchOptions(
    rounds=1,
    seconds=1.0,
    connections=8,
    workers=1,
    jobs=500,
    rows="0,100",
    backlogs="1000,2000",
    waiting=1_000,
    processes="1,2",
    peers=Path("/nowhere"),
)
# Measured with other libraries only, or with an API that is not there yet.
NOT_HERE = {library.VS_BEST, library.BATCH_VS_BATCH}

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def bench_system() -> Iterator[System]:
    with running() as system:
        yield system


def _check(part: Part) -> None:
    for target in TARGETS:
        if target.letter == part.letter and target.figure not in NOT_HERE:
            figure = part.find(target.figure)
            assert figure is not None, f"{target.what}: {[figure.name for figure in part.figures]}"
    assert all(value > 0 for figure in part.figures for value in figure.rounds if figure.unit.endswith("/s"))
    sized = [name for letter, name in sizing.FIGURES.values() if letter == part.letter]
    assert [name for name in sized if part.find(name) is None] == []
    report = Report(machine={"cores": "1"}, quick=True, parts=[part])
    assert json.loads(json.dumps(report.to_json()))["parts"][part.letter]["figures"]
    assert f"{part.letter}. {part.title}" in render(report)


def test_accept(bench_system: System) -> None:
    part = accept.measure(bench_system, TINY)
    _check(part)
    assert not [note for note in part.notes if "other than 202" in note]


def test_end_to_end_and_costs(bench_system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(end_to_end, "LATENCIES_MS", (0,))
    speed, cost = end_to_end.measure(bench_system, TINY)
    _check(speed)
    _check(cost)


def test_the_library(bench_system: System) -> None:
    part = library.measure(bench_system, TINY)
    _check(part)
    assert not [note for note in part.notes if "executed" in note]
    [absent] = [note for note in part.notes if note.startswith("not installed")]
    assert all(peer.name in absent for peer in library.PEERS)


def test_growth(bench_system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "API_COUNTS", (1, 2))
    _check(growth.measure(bench_system, TINY))


def test_light_load(bench_system: System) -> None:
    _check(light.measure(bench_system, TINY))
