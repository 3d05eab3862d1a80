"""The names, the slots and the choice of partitions."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

import pytest

from streams import Lane, Stream
from streams.partitions import Partitions, partition_name
from streams.slots import SLOTS, slot_of

STREAM = Stream("okane:payments", lanes=(Lane("critical", 6), Lane("default", 3), Lane("low", 1)))


def test_a_single_partition_is_the_stream_itself() -> None:
    assert Partitions(STREAM).streams == (STREAM,)
    assert Partitions(STREAM).of(b"\xff") == 0


@pytest.mark.parametrize("number", [2, 4, 16, 64, 256])
def test_each_partition_lies_in_its_own_part_of_the_slots(number: int) -> None:
    partitions = Partitions(STREAM, number)
    assert len({one.name for one in partitions.streams}) == number
    for at, one in enumerate(partitions.streams):
        slots = {slot_of(key) for key in (*one.lane_keys, one.delayed_key, one.dead_key)}
        assert len(slots) == 1
        assert at * SLOTS // number <= slots.pop() < (at + 1) * SLOTS // number
        assert one.lanes == STREAM.lanes


def test_a_smaller_suffix_lies_elsewhere() -> None:
    for at, one in enumerate(Partitions(STREAM, 16).streams):
        begin, _, suffix = one.name.rpartition(".")
        others = [slot_of(f"{begin}.{smaller}") * 16 // SLOTS for smaller in range(int(suffix))]
        assert begin == f"okane:payments:{at:02d}"
        assert at not in others


def test_names_stay_as_they_are_in_every_version() -> None:
    """Processes compute them: another name in a new version would be another stream."""
    assert [partition_name("okane:payments", at, 4) for at in range(4)] == [
        "okane:payments:00.0",
        "okane:payments:01.2",
        "okane:payments:02.0",
        "okane:payments:03.2",
    ]
    assert Partitions(STREAM, 16).streams[7].lane_key("critical") == "{okane:payments:07.62}:critical"
    assert Partitions(STREAM, 256).streams[255].dead_key == "{okane:payments:255.5}:dead"


@pytest.mark.parametrize(("number", "nodes"), [(16, 3), (16, 5), (64, 12)])
def test_nodes_have_about_as_many_partitions_as_each_other(number: int, nodes: int) -> None:
    counts = Counter(slot_of(one.dead_key) * nodes // SLOTS for one in Partitions(STREAM, number).streams)
    assert sum(counts.values()) == number
    assert max(counts.values()) - min(counts.values()) <= 2


def test_the_last_byte_of_the_body_chooses_as_sql_does() -> None:
    # SQL: get_byte(uuid_send(id), 15) % 16
    assert Partitions(STREAM, 16).of(UUID("01a200d6-955b-72a5-8132-84bf528696f7").bytes) == 7
    assert Partitions(STREAM, 256).of(UUID("01a200d6-955b-72a5-8132-84bf528696f7").bytes) == 0xF7
    assert Partitions(STREAM, 16).of(b"") == 0


def test_all_bodies_are_spread_evenly() -> None:
    counts = Counter(Partitions(STREAM, 16).of(bytes([last])) for last in range(256))
    assert counts == dict.fromkeys(range(16), 16)


@pytest.mark.parametrize("number", [0, -1, 3, 12, 512])
def test_the_number_is_a_power_of_two(number: int) -> None:
    with pytest.raises(ValueError, match="power of two, 1 to 256"):
        Partitions(STREAM, number)
