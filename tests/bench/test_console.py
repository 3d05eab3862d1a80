"""The benchmark of the console: its options, and all of its parts on the smallest numbers."""

from __future__ import annotations

import json
import re

import pytest

from bench.console import many_payments
from bench.console.__main__ import run
from bench.console.options import PARTS, ConsoleBenchOptions
from bench.console.targets import TARGETS
from bench.rendering import render
from okane.console.screens import SCREENS

TINY = ConsoleBenchOptions(workers=1, connections=8).made_quick()


@pytest.mark.timeout(300)
def test_every_part_finds_the_figures_that_its_targets_ask_for() -> None:
    report = run(TINY)
    assert [part.letter for part in report.parts] == [*PARTS]
    assert [target.what for target in TARGETS if report.find(target.letter, target.figure) is None] == []
    assert set(json.loads(json.dumps(report.to_json()))["parts"]) == {*PARTS}
    text = render(report, TARGETS)
    assert all(f"{letter}. {title}" in text for letter, title in PARTS.items())


def test_every_page_of_the_console_is_measured_among_many_payments() -> None:
    some = [("01a200d6-955b-72a5-8132-84bf52869645", "key-1")]
    measured = {**many_payments.pages(some, "endpoint-1", 1_000), **many_payments.searches(1_000)}
    paths = {path.partition("?")[0] for paths in measured.values() for path in paths}
    screens = [screen for screen, _ in SCREENS if screen.method == "GET" and not screen.public]
    assert len(screens) > 15
    for screen in screens:
        pattern = re.sub(r"\{\w+\}", "[^/]+", screen.path)
        assert any(re.fullmatch(pattern, path) for path in paths), screen.path


@pytest.mark.parametrize(
    ("changed", "refusal"),
    [
        ({"only": "a,z"}, "no part z"),
        ({"rounds": 0}, "at least 1"),
        ({"payments": 10}, "payments 1,000"),
        ({"seconds": 0.5}, "a second"),
    ],
)
def test_options_that_cannot_be_run_are_refused(changed: dict[str, object], refusal: str) -> None:
    with pytest.raises(ValueError, match=refusal):
        ConsoleBenchOptions(**changed)  # type: ignore[arg-type]  # of several types, on purpose
