from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import Lane, Stream
from streams.lanes import Rotation


@pytest.mark.parametrize("slots", [1, 2, 3, 7, 10, 64])
def test_weights_hold_over_time_however_few_slots_are_free(slots: int) -> None:
    rotation = Rotation([6, 3, 1])
    totals = [sum(column) for column in zip(*(rotation.shares(slots) for _ in range(100)), strict=True)]
    assert totals == [60 * slots, 30 * slots, 10 * slots]


def test_one_slot_at_a_time_never_starves_the_lightest() -> None:
    rotation = Rotation([6, 3, 1])
    turns = [rotation.shares(1).index(1) for _ in range(10)]
    assert turns.count(2) == 1
    assert max(turns.count(lane) for lane in range(3)) == 6


@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.lists(st.integers(0, 50), max_size=20))
def test_all_slots_are_given_and_no_lane_drifts_from_its_share(weights: list[int], calls: list[int]) -> None:
    rotation = Rotation(weights)
    totals = [0] * len(weights)
    given_out = 0
    for slots in calls:
        shares = rotation.shares(slots)
        assert sum(shares) == slots
        totals = [total + share for total, share in zip(totals, shares, strict=True)]
        given_out += slots
        for total, weight in zip(totals, weights, strict=True):
            assert abs(total - given_out * weight / sum(weights)) <= len(weights)


def test_a_lane_that_holds_its_part_of_the_slots_gets_no_more() -> None:
    rotation = Rotation([6, 3, 1])
    assert rotation.quotas(100, [0, 0, 0]) == [60, 30, 10]
    assert rotation.quotas(100, [90, 10, 0]) == [0, 20, 10]
    assert rotation.quotas(1, [0, 0, 0]) == [1, 1, 1]  # never none at all


def test_all_keys_of_a_stream_share_a_hash_tag() -> None:
    stream = Stream("pay:ments", lanes=(Lane("critical", 6), Lane("low")))
    assert stream.lane_keys == ("{pay:ments}:critical", "{pay:ments}:low")
    assert stream.delayed_key == "{pay:ments}:delayed"
    assert stream.dead_key == "{pay:ments}:dead"


@pytest.mark.parametrize("name", ["", "delayed", "dead", "a{b", "a:b"])
def test_lane_names_that_would_clash_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="lane"):
        Lane(name)


def test_streams_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="weight"):
        Lane("x", 0)
    with pytest.raises(ValueError, match="different names"):
        Stream("s", lanes=(Lane("x"), Lane("x")))
    with pytest.raises(ValueError, match="at least one lane"):
        Stream("s", lanes=())
    with pytest.raises(ValueError, match="braces"):
        Stream("{s}")
