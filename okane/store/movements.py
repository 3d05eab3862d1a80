"""The movements of money: read for the statement of a day, and the results of its comparison with a provider.

A movement counts at the time of the event that wrote it, not of the payment's acceptance. Guarantee: a read works through the
time in slices, each about as long as a statement should take; memory does not depend on the number of payments.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal
from uuid import UUID

from okane.store import sql_files
from okane.store.payment_layout import PaymentLayout
from okane.store.session import Session
from okane.store.sql_parameters import first_id
from streams.values import value

SQL = sql_files.load_statements("movements.sql", blocks_of="payments.sql")

# `refund_reversal`: a refund that failed after it had succeeded. The money came back.
MovementKind = Literal["charge", "capture", "refund", "refund_reversal"]

PAGE = 2_000  # movements that are in memory at a time
_FIRST_SLICE, _SHORTEST_SLICE = timedelta(minutes=15), timedelta(seconds=1)
_QUICK_S, _SLOW_S = 0.5, 2.0
_ALERT_DAYS = 7  # of older days no difference rings an alert


@dataclass(frozen=True, slots=True)
class Total:
    """The number and the sum of movements of one kind, in minor units of `currency`."""

    kind: MovementKind
    provider: str | None
    currency: str
    count: int
    amount_minor: int


@value
class Movement:
    """One movement of money. `provider_ref` is the provider's name for the charge, `operation_ref` for the operation."""

    kind: MovementKind
    at: datetime
    version: int
    payment_id: UUID
    operation_id: UUID | None
    account_id: str
    provider: str | None
    currency: str
    amount_minor: int
    provider_ref: str | None
    operation_ref: str | None


@value
class BookedPayment:
    """A payment as it is here, for a comparison."""

    id: UUID
    account_id: str
    provider: str | None
    provider_ref: str | None
    attempt_ref: str | None
    status: str
    amount_minor: int
    currency: str
    amount_captured: int | None = None


@value
class BookedOperation:
    """A capture, void or refund as it is here, for a comparison."""

    id: UUID
    payment_id: UUID
    kind: str
    provider: str
    provider_ref: str | None
    status: str
    amount_minor: int
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """The result of comparing a day with a provider's own list. `differences`: those that are left, by kind; `fees`: by
    currency, where the provider tells them."""

    provider: str
    day: date
    listed: int
    compared: int
    differences: Mapping[str, int]
    fees: Mapping[str, int]
    ran_at: datetime | None = None


class MovementStore:
    """Read movements, and keep results of comparisons. Raises StoreUnavailable."""

    def __init__(self, url: str, *, timeout: timedelta = timedelta(minutes=1)) -> None:
        self._session = Session(url, name="movements", timeout=timeout, by_time=True)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._session.aclose()

    async def now(self) -> datetime:
        """Return the database's time, by which movements are dated."""
        moment: datetime = (await self._session.fetch_repeatable(SQL["now"]))[0][0]
        return moment

    async def archived_before(self) -> datetime | None:
        """Return the time before which payments were archived; None if none were."""
        layout = PaymentLayout()
        await layout.read(self._session)
        return layout.parts[0].begin if layout.parts else None

    async def totals(
        self, begin: datetime, end: datetime, *, provider: str | None = None
    ) -> AsyncIterator[tuple[datetime, Sequence[Total]]]:
        """Yield, slice by slice, the time up to which the movements were read, and the totals of the slice."""
        length = _FIRST_SLICE
        while begin < end:
            till = min(begin + length, end)
            began_s = time.monotonic()
            rows = await self._session.fetch_repeatable(
                SQL["totals"], {"begin": begin, "end": till, "provider": provider}
            )
            took_s = time.monotonic() - began_s
            yield till, [Total(kind, at, currency, count, int(amount)) for kind, at, currency, count, amount in rows]
            begin = till
            if took_s < _QUICK_S:
                length *= 2
            elif took_s > _SLOW_S:
                length = max(length / 2, _SHORTEST_SLICE)

    async def each(
        self, begin: datetime, end: datetime, *, provider: str | None = None, page: int = PAGE
    ) -> AsyncIterator[Sequence[Movement]]:
        """Yield the movements in the order of time, in pages; some are empty."""
        length = _FIRST_SLICE
        after = (begin - timedelta(days=1), UUID(int=0), 0)
        while begin < end:
            till = min(begin + length, end)
            parameters = {"begin": begin, "end": till, "provider": provider, "limit": page} | dict(
                zip(("after_at", "after_id", "after_version"), after, strict=True)
            )
            found = [Movement(*row) for row in await self._session.fetch_repeatable(SQL["each"], parameters)]
            yield found
            if len(found) < page:
                begin, length = till, length * 2
                continue
            # The rest of this slice begins with the last one's time; the next slice shall hold about a page.
            last = found[-1]
            after = (last.at, last.payment_id, last.version)
            length = max(last.at - begin, _SHORTEST_SLICE)
            begin = last.at

    async def payments(self, ids: Collection[UUID]) -> Mapping[UUID, BookedPayment]:
        """Return those of these payments that there are, by id."""
        rows = await self._session.fetch_repeatable(SQL["payments"], {"ids": list(ids)}) if ids else []
        return {row[0]: BookedPayment(*row) for row in rows}

    async def operations(self, ids: Collection[UUID]) -> Mapping[UUID, BookedOperation]:
        """Return those of these operations that there are, by id."""
        rows = await self._session.fetch_repeatable(SQL["operations"], {"ids": list(ids)}) if ids else []
        return {row[0]: BookedOperation(*row) for row in rows}

    async def undecided(self, begin: datetime, end: datetime, *, provider: str) -> Sequence[UUID]:
        """Return the payments of a provider accepted in a span of time that are `unknown` or need a review."""
        return await self._undecided("undecided", begin, end, provider)

    async def undecided_operations(self, begin: datetime, end: datetime, *, provider: str) -> Sequence[UUID]:
        """Return the same of operations."""
        return await self._undecided("undecided_operations", begin, end, provider)

    async def _undecided(self, statement: str, begin: datetime, end: datetime, provider: str) -> Sequence[UUID]:
        parameters = {"first": first_id(begin.timestamp()), "last": first_id(end.timestamp()), "provider": provider}
        return [row[0] for row in await self._session.fetch_repeatable(SQL[statement], parameters)]

    async def of_day(self, day: date) -> Sequence[Reconciliation]:
        """Return the results of the comparisons of a day."""
        rows = await self._session.fetch_repeatable(SQL["of_day"], {"day": day})
        return [
            Reconciliation(
                provider=provider,
                day=day,
                ran_at=ran_at,
                listed=listed,
                compared=compared,
                differences=differences,
                fees=fees,
            )
            for provider, day, ran_at, listed, compared, differences, fees in rows
        ]

    async def keep(self, result: Reconciliation) -> None:
        """Keep the result of a comparison in place of the day's earlier one."""
        await self._session.fetch_repeatable(
            SQL["keep"],
            {
                "provider": result.provider,
                "day": result.day,
                "listed": result.listed,
                "compared": result.compared,
                "differences": json.dumps(dict(result.differences)),
                "fees": json.dumps(dict(result.fees)),
            },
        )


async def read_differences(session: Session) -> Sequence[tuple[str, str, int]]:
    """Return the differences that the last comparison of each of the last seven days left, by provider and kind."""
    rows = await session.fetch_repeatable(SQL["differences"], {"days": _ALERT_DAYS})
    return [(provider, kind, count) for provider, kind, count in rows]


async def read_ages(session: Session) -> Mapping[str, timedelta]:
    """Return the time since the last comparison with each provider that is compared as a routine."""
    rows = await session.fetch_repeatable(SQL["ages"])
    return {provider: timedelta(seconds=age_s) for provider, age_s in rows}
