"""Figures, ratios, targets, and how they are shown."""

from __future__ import annotations

import json

from bench.parts import accept, end_to_end
from bench.rendering import number, render
from bench.report import Collector, Part, Report
from bench.targets import TARGETS, standings


def _part(letter: str, name: str, *values: float) -> Part:
    found = Collector(letter, "title")
    for value in values:
        found.add(name, "x", value)
    return found.part()


def _report(*parts: Part) -> Report:
    return Report(machine={"cores": "4"}, quick=False, parts=parts)


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    found = Collector("a", "title")
    for mine, theirs in ((10, 1), (20, 1), (30, 10)):  # medians of each alone would say 20
        found.add("mine", "req/s", mine)
        found.add("theirs", "req/s", theirs)
    found.ratio("mine / theirs", of="mine", to="theirs")
    figure = found.part().find("mine / theirs")
    assert figure is not None
    assert figure.rounds == (10, 20, 3)
    assert figure.median == 10


def test_a_ratio_of_something_that_was_not_measured_is_a_note() -> None:
    found = Collector("c", "title")
    found.add("mine", "jobs/s", 1.0)
    found.ratio("mine / theirs", of="mine", to="theirs")
    assert found.part().find("mine / theirs") is None
    assert found.part().notes == ["mine / theirs: not known, without theirs"]


def test_a_report_is_json_with_every_round() -> None:
    said = json.loads(json.dumps(_report(_part("a", "okane", 1.0, 3.0, 2.0)).to_json()))
    assert set(said) == {"machine", "quick", "parts"}
    assert said["parts"]["a"] == {
        "title": "title",
        "figures": [{"name": "okane", "unit": "x", "median": 2.0, "rounds": [1.0, 3.0, 2.0]}],
        "notes": [],
    }


def test_targets_know_which_way_is_better() -> None:
    report = _report(_part("a", accept.VS_TEXTBOOK, 8.0), _part("d", end_to_end.CPU_VS_TEXTBOOK, 0.5))
    reached = {
        standing.target.figure: standing.target.reached(standing.value)
        for standing in standings(report)
        if standing.value is not None
    }
    assert reached == {accept.VS_TEXTBOOK: True, end_to_end.CPU_VS_TEXTBOOK: False}


def test_what_was_not_measured_stands_in_no_table() -> None:
    text = render(_report(_part("a", accept.VS_TEXTBOOK, 8.0)))
    assert "accept vs textbook" in text
    assert "end to end vs textbook" not in text
    assert [standing.value for standing in standings(_report())] == [None] * len(TARGETS)


def test_a_figure_short_of_its_target_says_so() -> None:
    assert "short" in render(_report(_part("a", accept.VS_TEXTBOOK, 6.9)))
    assert "short" not in render(_report(_part("a", accept.VS_TEXTBOOK, 7.0)))


def test_numbers_have_as_many_digits_as_mean_something() -> None:
    assert [number(value) for value in (12_345.6, 12.34, 1.234)] == ["12,346", "12.3", "1.23"]
