"""Payments in lists, newest or oldest first, and what happened to one of them: for the API.

Promise: a page costs a bounded number of rows, whatever is asked and however many payments there are. A page that comes to
its bound is short, or empty, and says where the next one goes on. On connections of their own: reading must not hold up
paying, nor one account's reading another's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from okane.payment import RARE_STATUSES, Payment, Status
from okane.store import columns, sql_files
from okane.store.fair_sessions import FairSessions
from okane.store.records import Attempt, Event
from okane.store.session import Session
from okane.store.sql_parameters import first_id

SQL = sql_files.load_statements("lists.sql")
_NEWEST_FIRST = {name: text.replace("{order}", "DESC").replace("{within}", ">=") for name, text in SQL.items()}
_OLDEST_FIRST = {name: text.replace("{order}", "ASC").replace("{within}", "<=") for name, text in SQL.items()}

AT_REST = sql_files.prepare_statements("lists.sql", "at_rest")["at_rest"]
_AT_REST = sorted(status.value for status in Status if status.is_at_rest)

CONNECTIONS = 3  # of one process; one account uses two of them
WINDOW = 10_000  # rows that one page may look at: some ten milliseconds
RARE_WINDOW = 2_000  # of each rare status
SKEW = timedelta(
    seconds=5
)  # how far an API's clock, which made the id, may be from the database's, which wrote the time
_FIRST, _LAST = UUID(int=0), UUID(int=2**128 - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentFilter:
    """The payments of an account that a list is to hold: all, but for what is said here. `from` counts, `before` does not.

    It begins with the newest, or if it is `ascending` with the oldest.
    """

    ascending: bool = False
    statuses: frozenset[Status] = frozenset()
    currency: str | None = None
    provider: str | None = None
    created_from: datetime | None = None
    created_before: datetime | None = None
    updated_from: datetime | None = None
    updated_before: datetime | None = None
    amount_min: int | None = None
    amount_max: int | None = None
    idempotency_key: str | None = None
    provider_ref: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def by_status_alone(self) -> bool:
        return self == PaymentFilter(statuses=self.statuses, ascending=self.ascending)


@dataclass(frozen=True, slots=True)
class Page:
    """Some payments, in the order that was asked for. `after` is where the next page goes on; None: there is no more."""

    payments: Sequence[Payment]
    after: UUID | None


class PaymentLists:
    """Reads only. Each method raises AccountBusy if too many reads of the account wait already, or StoreUnavailable."""

    def __init__(self, url: str, *, timeout: timedelta = timedelta(seconds=5)) -> None:
        sessions = [Session(url, name="lists", timeout=timeout, in_order=True) for _ in range(CONNECTIONS)]
        self._sessions = FairSessions(sessions)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._sessions.aclose()

    async def page(self, wanted: PaymentFilter, *, account_id: str, limit: int, after: UUID | None = None) -> Page:
        """Up to `limit` payments of an account, in the order that is wanted, from behind the one that `after` names."""
        statement, window = _choose_statement(wanted, limit)
        before = _first_id(wanted.created_before, SKEW) or _LAST
        oldest = _first_id(wanted.created_from, -SKEW) or _FIRST
        if after is not None and wanted.ascending:
            oldest = max(oldest, UUID(int=min(after.int + 1, _LAST.int)))
        elif after is not None:
            before = min(before, after)
        asked = _parameters(wanted) | {
            "account_id": account_id,
            "before": before,
            "oldest": oldest,
            "window": window,
            "limit": limit + 1,
        }
        statements = _OLDEST_FIRST if wanted.ascending else _NEWEST_FIRST
        async with self._sessions.lend(account_id) as session:
            found = await session.fetch_repeatable(statements[statement], asked)
        payments = await columns.read_payments([row for row in found if row[0] is not None])
        if len(payments) > limit:
            return Page(payments[:limit], payments[limit - 1].id)
        return Page(payments, found[0][columns.WIDTH] if found else None)

    async def timeline(self, payment_id: UUID, *, account_id: str, after: int, limit: int) -> Sequence[Event]:
        """Up to `limit` changes of a payment from number `after` on, oldest first; acceptance is number 0."""
        asked = {"id": payment_id, "account_id": account_id, "after": after, "limit": limit}
        async with self._sessions.lend(account_id) as session:
            return [columns.read_event(row) for row in await session.fetch_repeatable(SQL["timeline"], asked)]

    async def attempts(self, payment_id: UUID, *, account_id: str, after: int, limit: int) -> Sequence[Attempt]:
        """Up to `limit` claims of a payment from number `after` on, in order."""
        asked = {"id": payment_id, "account_id": account_id, "after": after, "last": after + limit}
        async with self._sessions.lend(account_id) as session:
            return _attempts(
                [columns.read_event(row) for row in await session.fetch_repeatable(SQL["attempts"], asked)]
            )


def _attempts(events: Sequence[Event]) -> Sequence[Attempt]:
    """The claims among these events, each with the last that was heard of it."""
    attempts: dict[int, Attempt] = {}
    for event in events:
        if event.event == "claimed":
            attempts[event.attempt] = Attempt(event.attempt, began_at=event.at)
        elif event.attempt in attempts:
            attempts[event.attempt] = replace(
                attempts[event.attempt],
                ended_at=event.at,
                outcome=event.event,
                call=event.call,
                provider=event.provider,
                decline_code=event.decline_code,
                reason=event.reason,
                latency_ms=event.latency_ms,
            )
    return list(attempts.values())


class PaymentWatch:
    """Looks at many payments at once, again and again, for those who wait for them."""

    def __init__(self, url: str, *, timeout: timedelta = timedelta(seconds=5)) -> None:
        self._session = Session(url, name="watch", timeout=timeout, index_only=True)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._session.aclose()

    async def find_at_rest(self, ids: Sequence[UUID]) -> Sequence[UUID]:
        """Those of these payments that nothing but a human will change."""
        return [row[0] for row in await self._session.fetch_repeatable(AT_REST, {"ids": ids, "statuses": _AT_REST})]


def _choose_statement(wanted: PaymentFilter, limit: int) -> tuple[str, int]:
    """The statement that finds them soonest, and how many rows it may look at."""
    if wanted.idempotency_key is not None:
        return "of_key", 1
    if wanted.statuses and wanted.statuses <= RARE_STATUSES:
        return "newest_rare", limit + 1 if wanted.by_status_alone else RARE_WINDOW
    return "newest", WINDOW


def _parameters(wanted: PaymentFilter) -> dict[str, Any]:
    return {
        "statuses": sorted(wanted.statuses) or None,
        "currency": wanted.currency,
        "provider": wanted.provider,
        "created_from": wanted.created_from,
        "created_before": wanted.created_before,
        "updated_from": wanted.updated_from,
        "updated_before": wanted.updated_before,
        "amount_min": wanted.amount_min,
        "amount_max": wanted.amount_max,
        "idempotency_key": wanted.idempotency_key,
        "provider_ref": wanted.provider_ref,
        "metadata": json.dumps(dict(wanted.metadata)) if wanted.metadata else None,
    }


def _first_id(moment: datetime | None, shift: timedelta) -> UUID | None:
    return None if moment is None else first_id(moment.timestamp() + shift.total_seconds())
