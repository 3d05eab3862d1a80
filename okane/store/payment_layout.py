"""The tables in which payments are: one, or table partitions, as this process has last read it.

A statement on the partitioned table opens every table partition, which costs a small batch several times its work. So what is
batched by id names the table partition of its ids, if all are in one.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

import structlog

from okane.errors import PaymentArchived, PaymentNotFound, StoreBusy, StoreUnavailable
from okane.store import columns, sql_files
from okane.store.partition_bounds import Part, lowest_id, parse_bound, time_of
from okane.store.prepared_statements import PreparedStatement, Row
from okane.store.session import Fetching

log = structlog.get_logger("okane.store")

# A text: some sessions have statements of psycopg's, which must not be mixed with prepared ones of ours (see `Session`).
PARTS = sql_files.load_statements("table_partitions.sql")["parts"]
LOOK_S = 60.0  # between two looks at the parts
# Parts that ended before are not named: `okane archive` takes the oldest, and each name is one more prepared statement.
NAMED = timedelta(days=8)

_TABLE = re.compile(r"\b(FROM|JOIN|UPDATE|INTO) (payments|payment_events)\b")


class PaymentLayout:
    """The table partitions of payments. Shared by the sessions of a store; any of them reads it when that is due."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._look_at_s = float("-inf")
        self._parts: Sequence[Part] = ()
        self._named: Sequence[tuple[int, int, str]] = ()  # the first id, the one behind the last, the suffix

    @property
    def parts(self) -> Sequence[Part]:
        """The parts, oldest first; none if payments are in one table."""
        return self._parts

    @property
    def is_partitioned(self) -> bool:
        return bool(self._parts)

    @property
    def has_first(self) -> bool:
        """True while the keys of some payments are in the index of the first table partition alone."""
        return bool(self._parts) and self._parts[0].begin is None

    def expire(self) -> None:
        """Read the parts again before the next statement."""
        self._look_at_s = float("-inf")

    async def missing(self, session: Fetching, payment_id: UUID) -> PaymentNotFound:
        """Return the error for a payment without a row: it was archived, or there is none. Raises StoreUnavailable."""
        await self.look(session)
        if self._parts and (begin := self._parts[0].begin) is not None and time_of(payment_id) < begin:
            return PaymentArchived(str(payment_id))
        return PaymentNotFound(str(payment_id))

    async def look(self, session: Fetching) -> None:
        """Read the parts if that is due. Raises StoreUnavailable."""
        if self._clock() >= self._look_at_s:
            await self.read(session)

    async def read(self, session: Fetching) -> bool:
        """Read the parts; return whether they have changed. Raises StoreUnavailable."""
        bounds = [row[0] for row in await session.fetch_repeatable(PARTS)]
        if None in bounds:  # a table was dropped under the statement: what is left is not the whole
            self.expire()
            raise StoreBusy("the table partitions of payments are being changed")
        before, self._parts = self._parts, sorted(map(parse_bound, bounds))
        self._look_at_s = self._clock() + LOOK_S
        since = datetime.now(UTC) - NAMED
        self._named = [
            (0 if part.begin is None else lowest_id(part.begin).int, lowest_id(part.end).int, part.suffix)
            for part in reversed(self._parts)
            if part.end > since
        ]
        if list(before) != list(self._parts):
            log.info("table_partitions_read", parts=len(self._parts))
        return list(before) != list(self._parts)

    async def session_for(self, session: Fetching, ids: Sequence[UUID]) -> Fetching:
        """Return how to run statements on these payments: the session, or one that names the table partition of all of them.
        Raises StoreUnavailable."""
        await self.look(session)
        if not self._named:
            return session
        numbers = [*map(columns.INT, ids)]
        suffix = self.part_of(min(numbers), max(numbers))
        return session if suffix is None else _OnePart(session, suffix, self)

    def part_of(self, lowest: int, highest: int) -> str | None:
        """Return the suffix of the named part that has all ids of a range; None if there is none."""
        for begin, end, suffix in self._named:
            if begin <= lowest and highest < end:
                return suffix
        return None


class _OnePart:
    """A session whose prepared statements run on one table partition."""

    def __init__(self, session: Fetching, suffix: str, layout: PaymentLayout) -> None:
        self._session = session
        self._suffix = suffix
        self._layout = layout

    async def fetch(
        self, statement: LiteralString | PreparedStatement, parameters: Mapping[str, Any] | None = None
    ) -> Sequence[Row]:
        try:
            return await self._session.fetch(self._on_part(statement), parameters)
        except StoreUnavailable:
            self._layout.expire()  # perhaps there is no such table any more
            raise

    async def fetch_repeatable(
        self, statement: LiteralString | PreparedStatement, parameters: Mapping[str, Any] | None = None
    ) -> Sequence[Row]:
        try:
            return await self._session.fetch_repeatable(self._on_part(statement), parameters)
        except StoreUnavailable:
            self._layout.expire()
            raise

    def _on_part(self, statement: LiteralString | PreparedStatement) -> PreparedStatement:
        assert isinstance(statement, PreparedStatement)
        text = on_part(statement.text.decode(), self._suffix).encode()
        return PreparedStatement(b"%s_%s" % (statement.name, self._suffix.encode()), text, statement.encoders)


@functools.lru_cache(maxsize=1_000)  # of one text for each part
def on_part(text: str, suffix: str) -> str:
    """Return a statement on payments and their events as one on a table partition."""
    return _TABLE.sub(rf"\1 \2_{suffix}", text)
