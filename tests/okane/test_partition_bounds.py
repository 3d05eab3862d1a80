"""The bounds of table partitions: times in ids, names, and which parts are missing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from okane.errors import SetupError
from okane.payment_id import PaymentId
from okane.store.partition_bounds import (
    DAY,
    MAX_PARTS,
    WEEK,
    Part,
    first_end,
    gap_before,
    length_of_newest,
    lowest_id,
    missing_parts,
    parse_bound,
    time_of,
)

NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)  # a Tuesday
FIRST = Part(datetime(2026, 12, 7, tzinfo=UTC), None)


def test_a_new_id_has_the_time_of_its_making() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=2)
    assert before <= time_of(PaymentId()) <= datetime.now(UTC) + timedelta(milliseconds=2)


def test_the_lowest_id_parts_the_ids_of_two_milliseconds() -> None:
    at = NOON + timedelta(milliseconds=7)
    bound = lowest_id(at)
    assert time_of(bound) == at
    assert time_of(UUID(int=bound.int - 1)) == at - timedelta(milliseconds=1)
    assert Part(at, None).holds(UUID(int=bound.int - 1))
    assert not Part(at, None).holds(bound)
    assert Part(at + DAY, at).holds(bound)


@pytest.mark.parametrize(
    ("now", "every", "end"),
    [
        (NOON, WEEK, datetime(2026, 12, 7, tzinfo=UTC)),
        (datetime(2026, 12, 4, 23, 59, tzinfo=UTC), WEEK, datetime(2026, 12, 7, tzinfo=UTC)),
        (datetime(2026, 12, 5, tzinfo=UTC), WEEK, datetime(2026, 12, 14, tzinfo=UTC)),  # two days are not enough left
        (NOON, DAY, datetime(2026, 12, 4, tzinfo=UTC)),
        (datetime(2026, 12, 1, tzinfo=UTC), DAY, datetime(2026, 12, 4, tzinfo=UTC)),
    ],
)
def test_the_first_part_ends_at_a_midnight_that_is_two_days_away(
    now: datetime, every: timedelta, end: datetime
) -> None:
    assert first_end(now, every) == end


def test_parts_follow_each_other_until_the_time_that_is_wanted() -> None:
    until = FIRST.end + 8 * DAY
    assert missing_parts([FIRST], every=WEEK, until=until) == [
        Part(FIRST.end + WEEK, FIRST.end),
        Part(FIRST.end + 2 * WEEK, FIRST.end + WEEK),
    ]
    assert not missing_parts([FIRST], every=WEEK, until=FIRST.end)


def test_no_more_than_64_parts_are_made() -> None:
    until = FIRST.end + (MAX_PARTS - 1) * DAY
    parts = [FIRST, *missing_parts([FIRST], every=DAY, until=until)]
    assert len(parts) == MAX_PARTS
    with pytest.raises(SetupError, match="archive the oldest"):
        missing_parts(parts, every=DAY, until=until + timedelta(seconds=1))


def test_names_have_the_day_of_the_begin() -> None:
    assert FIRST.table("payments") == "payments_first"
    assert Part(FIRST.end + WEEK, FIRST.end).table("operation_events") == "operation_events_20261207"


def test_a_bound_is_read_as_postgres_shows_it() -> None:
    begin, end = lowest_id(FIRST.end), lowest_id(FIRST.end + WEEK)
    assert parse_bound(f"FOR VALUES FROM (MINVALUE) TO ('{begin}')") == FIRST
    assert parse_bound(f"FOR VALUES FROM ('{begin}') TO ('{end}')") == Part(FIRST.end + WEEK, FIRST.end)
    for foreign in ("DEFAULT", f"FOR VALUES FROM ('{begin}') TO (MAXVALUE)", "FOR VALUES FROM (1) TO (2)"):
        with pytest.raises(SetupError, match="not made by okane"):
            parse_bound(foreign)


def test_the_next_parts_are_as_long_as_the_newest() -> None:
    assert length_of_newest([FIRST]) is None
    assert length_of_newest([FIRST, Part(FIRST.end + WEEK, FIRST.end)]) == WEEK


def test_a_gap_is_found() -> None:
    second = Part(FIRST.end + WEEK, FIRST.end)
    late = Part(second.end + 2 * WEEK, second.end + WEEK)
    assert gap_before([second, FIRST]) is None
    assert gap_before([late, second, FIRST]) == second.end
