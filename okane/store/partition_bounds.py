"""The bounds of table partitions, without a database: ids and their times, which parts there are, and which are missing.

A part is one span of time in four tables with the same bounds. A new id (UUID of version 7) begins with its time, so that the
order of ids is that of time.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from okane.errors import SetupError

# The tables of a part, with the column that has the time.
TABLES: Mapping[str, str] = {
    "payments": "id",
    "payment_events": "payment_id",
    "operations": "id",
    "operation_events": "operation_id",
}
MAX_PARTS = 64  # attached: a statement that is not bound to one of them opens all
DAY = timedelta(days=1)
WEEK = timedelta(days=7)
AHEAD_PARTS = 2  # of the newest length: the time for which parts are made ahead
MIN_AHEAD = 2 * DAY  # the first bound: until then the conversion must be over, and a day before that an alert pages

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MONDAY = _EPOCH + 4 * DAY
_BOUND = re.compile(r"FOR VALUES FROM \((?:MINVALUE|'([0-9a-f-]{36})')\) TO \('([0-9a-f-]{36})'\)")
_TIME_SHIFT = 80  # RFC 9562: the first 48 bits are the milliseconds since 1970


def time_of(an_id: UUID) -> datetime:
    """Return the time in an id, to the millisecond."""
    return _EPOCH + timedelta(milliseconds=an_id.int >> _TIME_SHIFT)


def lowest_id(at: datetime) -> UUID:
    """Return the id below all that are made from this time on, and above all earlier ones."""
    return UUID(int=((at - _EPOCH) // timedelta(milliseconds=1)) << _TIME_SHIFT)


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """The ids from `begin` to below `end`. The first part has no begin: it has all older ids."""

    end: datetime
    begin: datetime | None

    @property
    def suffix(self) -> str:
        """The end of its tables' names."""
        return "first" if self.begin is None else f"{self.begin:%Y%m%d}"

    def table(self, parent: str) -> str:
        """Return the name of its part of this table."""
        return f"{parent}_{self.suffix}"

    def holds(self, an_id: UUID) -> bool:
        """Return True if this id belongs to it."""
        at = time_of(an_id)
        return at < self.end and (self.begin is None or self.begin <= at)


def parse_bound(text: str) -> Part:
    """Return the part of a bound as Postgres shows it. Raise SetupError for one that okane has not made."""
    found = _BOUND.fullmatch(text)
    if found is None:
        raise SetupError(f"a table partition with the bound {text!r} was not made by okane")
    return Part(time_of(UUID(found[2])), None if found[1] is None else time_of(UUID(found[1])))


def first_end(now: datetime, every: timedelta) -> datetime:
    """Return the end of the first part: a midnight (UTC), of a Monday if parts are weeks, that is two days or more away."""
    start = _MONDAY if every % WEEK == timedelta(0) else _EPOCH
    passed = (now + MIN_AHEAD - start) // every
    return start + (passed + 1) * every


def missing_parts(parts: Sequence[Part], *, every: timedelta, until: datetime) -> Sequence[Part]:
    """Return the parts to make behind the newest one, so that every time before `until` has a part. Raise SetupError if they
    would be too many."""
    missing: list[Part] = []
    end = max(parts).end
    while end < until:
        missing.append(Part(end + every, end))
        end += every
    if len(parts) + len(missing) > MAX_PARTS:
        raise SetupError(
            f"{len(parts)} table partitions and {len(missing)} new ones are more than {MAX_PARTS}: archive the oldest"
            " (okane archive), or make longer ones (--every)"
        )
    return missing


def length_of_newest(parts: Sequence[Part]) -> timedelta | None:
    """Return how long the newest part lasts, which the next ones repeat. None while there is only the first."""
    newest = max(parts)
    return None if newest.begin is None else newest.end - newest.begin


def are_short(parts: Sequence[Part], *, now: datetime) -> bool:
    """Return True if parts should be made: of the next time, or in a gap. False for one table, and if no length is known."""
    every = length_of_newest(parts) if parts else None
    return every is not None and (gap_before(parts) is not None or max(parts).end < now + AHEAD_PARTS * every)


def gap_before(parts: Sequence[Part]) -> datetime | None:
    """Return the first time from which on no part follows although later ones do; None if all meet."""
    ordered = sorted(parts)
    for one, following in itertools.pairwise(ordered):
        if following.begin != one.end:
            return one.end
    return None
