"""The pictures of the dashboards show every point of the answers, and no other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from grafana.panels import AMBER, COLOURS, GREEN, RED
from grafana.screens.boards import Board, Named, Panel, Place
from grafana.screens.kinds import COLOURS as DRAWN_COLOURS
from grafana.screens.kinds import starts
from grafana.screens.picture import picture
from grafana.screens.prometheus import Series, Span
from grafana.screens.units import format_value
from tests.grafana.boards import FILES, panels

SPAN = Span(from_s=1_006, to_s=1_031, interval_s=5)
GAP = math.nan


def panel(kind: str, *answers: Named) -> Panel:
    return Panel(
        kind=kind,
        title=f"a {kind}",
        place=Place(0, 0, 12, 8),
        unit="short",
        units={"Pending": "short", "Idle": "s"},
        steps=[(-math.inf, "green"), (10, "red")],
        stacked=False,
        soft_max=0,
        whole=False,
        words={},
        colours={},
        by="consumer",
        answers=answers,
    )


def named(values: Sequence[float], *, column: str = "", **labels: str) -> Named:
    return Named(name="a name", series=Series(labels, values), column=column)


@pytest.mark.parametrize(
    ("kind", "answers", "points"),
    [
        ("timeseries", [named([1, 2, GAP, 4, 5]), named([GAP, GAP, GAP, GAP, 0])], 5),
        ("timeseries", [], 0),
        ("stat", [named([GAP, 2, 3, GAP, GAP])], 2),
        ("stat", [], 0),
        # Of the second bucket only the part that is not in the first; empty cells are not drawn.
        ("heatmap", [named([1, 1, 1, 1, 0], le="0.5"), named([1, 3, 3, GAP, 0], le="+Inf")], 4 + 2),
        ("table", [named([3], column="Pending", consumer="w1"), named([0.2], column="Idle", consumer="w2")], 2),
    ],
)
def test_a_panel_shows_every_point_of_its_answers(kind: str, answers: list[Named], points: int) -> None:
    board = Board(uid="a", title="A", chosen={}, panels=[panel(kind, *answers)], marks=[], span=SPAN)
    content, [drawn] = picture(board)
    assert content.startswith(b"\x89PNG")
    assert (drawn.title, drawn.points) == (f"a {kind}", points)


def test_moments_lie_on_whole_steps() -> None:
    assert SPAN.moments == [1_010, 1_015, 1_020, 1_025, 1_030]
    assert SPAN.rate_s == 20
    assert len(Span(from_s=0, to_s=86_400).moments) <= 251


def test_a_process_starts_where_its_points_begin() -> None:
    marks = [Series({}, [GAP, 1, 2, GAP, 1]), Series({}, [GAP, 3, GAP, GAP, GAP])]
    assert starts(marks, SPAN.moments) == [1_015, 1_030]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "s", "0 s"),
        (0.0249, "s", "24.9 ms"),
        (90, "s", "1.5 min"),
        (0, "short", "0"),
        (1_234, "short", "1.23 K"),
        (0.9967, "percentunit", "99.7%"),
        (3 * 2**20, "bytes", "3 MiB"),
        (39.94, "suffix:/s", "39.9/s"),
        (40, "reqps", "40 req/s"),
    ],
)
def test_values_are_written_with_their_unit(value: float, unit: str, text: str) -> None:
    assert format_value(value, unit) == text


def test_every_unit_of_the_dashboards_can_be_written() -> None:
    for file in FILES:
        for one in panels(file):
            for unit in one.unit.split():
                assert format_value(1, unit)


def test_every_colour_of_the_dashboards_can_be_drawn() -> None:
    assert {*COLOURS.values(), GREEN, AMBER, RED} <= DRAWN_COLOURS.keys()
