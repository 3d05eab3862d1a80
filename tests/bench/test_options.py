"""The options of `okane bench`."""

from __future__ import annotations

import pytest

from bench.options import PARTS, BenchOptions


def test_everything_is_measured_unless_said_otherwise() -> None:
    assert BenchOptions().letters == tuple(PARTS)
    assert BenchOptions(only="c, a").letters == ("c", "a")


def test_lists_of_numbers_are_read() -> None:
    assert BenchOptions(rows="0,5000000").row_counts == (0, 5_000_000)


@pytest.mark.parametrize(
    "wrong",
    [
        {"only": "a,z"},
        {"rounds": 0},
        {"seconds": 0.5},
        {"rows": "many"},
        {"backlogs": "0"},
        {"processes": "0,1"},
    ],
)
def test_what_cannot_be_run_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"part|at least|numbers"):
        BenchOptions(**wrong)  # type: ignore[arg-type]  # wrong on purpose


def test_quick_is_small_and_keeps_the_rest() -> None:
    quick = BenchOptions(only="a", quick=True, connections=7).made_quick()
    assert (quick.letters, quick.connections, quick.rounds, quick.quick) == (("a",), 7, 1, True)
    assert max(quick.row_counts) < 10_000
