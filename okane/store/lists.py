"""Lists of payments and the history of one payment, for the API.

Guarantee: a page reads a bounded number of rows, for any filter and any number of payments. A page that reaches the bound is
short or empty, and has the position of the next one. Lists use connections of their own: reading must delay neither payments
nor the reads of other accounts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from okane.errors import StoreUnavailable
from okane.payment import RARE_STATUSES, Payment, Status
from okane.store import columns, payment_keys, sql_files
from okane.store.fair_sessions import FairSessions
from okane.store.payment_layout import PaymentLayout
from okane.store.prepared_statements import Row
from okane.store.records import Attempt, Event
from okane.store.session import Session
from okane.store.sql_parameters import first_id

SQL = sql_files.load_statements("lists.sql")
_NEWEST_FIRST = {name: text.replace("{order}", "DESC").replace("{within}", ">=") for name, text in SQL.items()}
_OLDEST_FIRST = {name: text.replace("{order}", "ASC").replace("{within}", "<=") for name, text in SQL.items()}
_KEYS_OF_FIRST = f" UNION {SQL['in_first']}"
_WITHOUT_METADATA = {name: text.replace(columns.METADATA, "'{}'") for name, text in _NEWEST_FIRST.items()}

WAITED_FOR = sql_files.prepare_statements("lists.sql", "waited_for")["waited_for"]
# At rest, or for the customer or the client to go on.
_WAITED_FOR = sorted(
    status.value for status in Status if status.is_at_rest or status in {Status.REQUIRES_ACTION, Status.AUTHORIZED}
)

CONNECTIONS = 3  # of one process; one account uses two of them
WINDOW = 10_000  # rows that one page may read: some ten milliseconds
RARE_WINDOW = 2_000  # of each rare status
# The largest difference between the clock of an API process, which makes the id, and of the database, which writes the time.
SKEW = timedelta(seconds=5)
_FIRST, _LAST = UUID(int=0), UUID(int=2**128 - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentFilter:
    """A filter of an account's payments; the default is all. `from` is inclusive, `before` exclusive.

    A list begins with the newest, or with `ascending` with the oldest.
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
    """A page of payments. `after` is the id where the next page begins, None after the last page."""

    payments: Sequence[Payment]
    after: UUID | None


class PaymentLists:
    """Read lists. Each method raises StoreUnavailable, or AccountBusy while too many reads of the account wait."""

    def __init__(self, url: str, *, timeout: timedelta = timedelta(seconds=5)) -> None:
        sessions = [Session(url, name="lists", timeout=timeout, in_order=True) for _ in range(CONNECTIONS)]
        self._sessions = FairSessions(sessions)
        self._layout = PaymentLayout()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._sessions.aclose()

    async def page(self, wanted: PaymentFilter, *, account_id: str, limit: int, after: UUID | None = None) -> Page:
        """Return up to `limit` payments of an account in the order of the filter, those after the id `after`."""
        statements = _OLDEST_FIRST if wanted.ascending else _NEWEST_FIRST
        return await self._page(statements, wanted, account_id=account_id, limit=limit, after=after)

    async def page_without_metadata(
        self, wanted: PaymentFilter, *, account_id: str, limit: int, after: UUID | None = None
    ) -> Page:
        """`page`, newest first, whose payments have no metadata, of which there may be megabytes."""
        return await self._page(_WITHOUT_METADATA, wanted, account_id=account_id, limit=limit, after=after)

    async def _page(
        self,
        statements: Mapping[str, LiteralString],
        wanted: PaymentFilter,
        *,
        account_id: str,
        limit: int,
        after: UUID | None,
    ) -> Page:
        statement, window = _choose_statement(wanted, limit)
        before = _first_id(wanted.created_before, SKEW) or _LAST
        oldest = _first_id(wanted.created_from, -SKEW) or _FIRST
        if after is not None and wanted.ascending:
            oldest = max(oldest, UUID(int=min(after.int + 1, _LAST.int)))
        elif after is not None:
            before = min(before, after)
        parameters = _parameters(wanted) | {
            "account_id": account_id,
            "before": before,
            "oldest": oldest,
            "window": window,
            "limit": limit + 1,
        }
        async with self._sessions.lend(account_id) as session:
            if wanted.idempotency_key is None:
                found = await session.fetch_repeatable(statements[statement], parameters)
            else:
                found = await self._of_key(session, statements, parameters)
        payments = await columns.read_payments([row for row in found if row[0] is not None])
        if len(payments) > limit:
            return Page(payments[:limit], payments[limit - 1].id)
        return Page(payments, found[0][columns.WIDTH] if found else None)

    async def _of_key(
        self, session: Session, statements: Mapping[str, LiteralString], parameters: Mapping[str, Any]
    ) -> Sequence[Row]:
        await self._layout.look(session)
        if not self._layout.is_partitioned:
            return await session.fetch_repeatable(statements["of_key"], parameters)
        of_first = _KEYS_OF_FIRST if self._layout.has_first else ""
        text = statements["of_key_in_parts"].replace("{keys_of_first}", of_first)
        digest = payment_keys.digest(parameters["account_id"], parameters["idempotency_key"])
        try:
            return await session.fetch_repeatable(text, {**parameters, "digest": digest})
        except StoreUnavailable:
            self._layout.expire()  # perhaps the first table partition is gone
            raise

    async def timeline(self, payment_id: UUID, *, account_id: str, after: int, limit: int) -> Sequence[Event]:
        """Return up to `limit` events of a payment after version `after`, oldest first; acceptance is version 0."""
        parameters = {"id": payment_id, "account_id": account_id, "after": after, "limit": limit}
        async with self._sessions.lend(account_id) as session:
            return [columns.read_event(row) for row in await session.fetch_repeatable(SQL["timeline"], parameters)]

    async def attempts(self, payment_id: UUID, *, account_id: str, after: int, limit: int) -> Sequence[Attempt]:
        """Return up to `limit` attempts of a payment after number `after`, in order."""
        parameters = {"id": payment_id, "account_id": account_id, "after": after, "last": after + limit}
        async with self._sessions.lend(account_id) as session:
            return _attempts(
                [columns.read_event(row) for row in await session.fetch_repeatable(SQL["attempts"], parameters)]
            )


def _attempts(events: Sequence[Event]) -> Sequence[Attempt]:
    """Return the attempts in these events, each with its last outcome."""
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
    """Check many payments at once, for requests that wait for them."""

    def __init__(self, url: str, *, timeout: timedelta = timedelta(seconds=5)) -> None:
        self._session = Session(url, name="watch", timeout=timeout, index_only=True)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._session.aclose()

    async def find_waited_for(self, ids: Sequence[UUID]) -> Sequence[tuple[UUID, Status]]:
        """Return those of these payments that only a human can change, their customer (`requires_action`) or their client
        (`authorized`)."""
        found = await self._session.fetch_repeatable(WAITED_FOR, {"ids": ids, "statuses": _WAITED_FOR})
        return [(payment_id, columns.STATUSES[status]) for payment_id, status in found]


def is_search(wanted: PaymentFilter) -> bool:
    """Tell whether a list has to look through payments that the filter leaves out, one by one, by more than a page.

    An index finds the others: by key, by the time of creation, by rare statuses. Most payments are successes.
    """
    if wanted.idempotency_key is not None:
        return False
    found_at_once = PaymentFilter(
        ascending=wanted.ascending,
        statuses=wanted.statuses,
        created_from=wanted.created_from,
        created_before=wanted.created_before,
    )
    is_by_status = not wanted.statuses or wanted.statuses <= RARE_STATUSES or Status.SUCCESS in wanted.statuses
    return wanted != found_at_once or not is_by_status


def metadata_statement(
    wanted: PaymentFilter, account_id: str, *, before: UUID | None
) -> tuple[LiteralString, dict[str, Any]]:
    """Return the statement that finds payments by the optional index on metadata, and its parameters but the bounds."""
    newest = _first_id(wanted.created_before, SKEW) or _LAST
    return SQL["of_metadata"], _parameters(wanted) | {
        "account_id": account_id,
        "before": newest if before is None else min(newest, before),
        "oldest": _first_id(wanted.created_from, -SKEW) or _FIRST,
    }


def window_of(wanted: PaymentFilter) -> int | None:
    """Return how many payments a page looks through before it ends without being full; None if it does not know."""
    statement, window = _choose_statement(wanted, 1)
    return window if statement == "newest" else None


def _choose_statement(wanted: PaymentFilter, limit: int) -> tuple[str, int]:
    """Return the fastest statement for a filter, and how many rows it may read."""
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
