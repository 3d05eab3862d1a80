"""Disputes in Postgres: noticed, fetched by a worker, written with the event of their payment, and listed.

Guarantee: a dispute is written once for each fetch, and only if no notice has come since the fetch began: a later notice is
followed by a later fetch, whatever the order in which notices arrive.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from okane.dispute import Dispute, DisputeStatus
from okane.payment_id import PaymentId, cell_of
from okane.store import sql_files
from okane.store.fair_sessions import FairSessions
from okane.store.prepared_statements import Row
from okane.store.session import Session
from streams.values import value

SQL = sql_files.load_statements("disputes.sql", blocks_of="payments.sql")

CONNECTIONS = 2  # of one process; one account uses one of them
MAX_FETCHES = 20  # that one claim takes
_LAST = UUID(int=2**128 - 1)
WINDOW = 10_000  # rows that one page may read
_WIDTH, _STATUS = 12, 7  # the number of the columns of `{dispute}`, and the place of one

DisputeEvent = Literal["dispute_opened", "dispute_closed"]


@dataclass(frozen=True, slots=True)
class DueFetch:
    """The claim to fetch one dispute and write it. `tries` counts the claims since its last notice."""

    provider: str
    provider_ref: str
    fence: UUID
    tries: int


@value
class FetchedDispute:
    """A dispute as its provider has reported it, to be written."""

    payment_id: UUID
    amount_minor: int
    currency: str
    status: DisputeStatus
    reason: str | None
    due_by: datetime | None


@dataclass(frozen=True, slots=True)
class WrittenDispute:
    """The result of a write. `written` is False if the claim was lost; `matched` if the provider has such a payment here.

    `event` is the payment's new event, if the dispute has opened or is over since the last fetch.
    """

    written: bool
    matched: bool
    event: DisputeEvent | None


@dataclass(frozen=True, slots=True)
class DisputePage:
    """A page of disputes. `after` is the id where the next page begins, None after the last page. A page may be short, or
    empty, before that: a filter has found no more among `WINDOW` disputes."""

    disputes: Sequence[Dispute]
    after: UUID | None


class DisputeStore:
    """The fetches of disputes, for a worker. Each method raises StoreUnavailable. Time is the database's."""

    def __init__(self, url: str, *, actor: str, timeout: timedelta = timedelta(seconds=10)) -> None:
        self._session = Session(url, name="dispute fetches", timeout=timeout, index_only=True)
        self._actor = actor

    async def aclose(self) -> None:
        """Close the connection."""
        await self._session.aclose()

    async def claim(self, providers: Collection[str]) -> Sequence[DueFetch]:
        """Claim fetches that are due at these providers. One that is not written is due again, each time later."""
        parameters = {"providers": list(providers), "limit": MAX_FETCHES}
        return [DueFetch(*row) for row in await self._session.fetch(SQL["claim"], parameters)]

    async def write(self, due: DueFetch, dispute: FetchedDispute) -> WrittenDispute:
        """Write a fetched dispute, and the event of its payment, if the claim still holds."""
        found = await self._session.fetch(
            SQL["write"],
            {
                "id": PaymentId(cell_of(dispute.payment_id)),
                "provider": due.provider,
                "provider_ref": due.provider_ref,
                "fence": due.fence,
                "payment_id": dispute.payment_id,
                "amount_minor": dispute.amount_minor,
                "currency": dispute.currency,
                "status": dispute.status.value,
                "reason": dispute.reason,
                "due_by": dispute.due_by,
                "actor": self._actor,
            },
        )
        fetched, matched, event = found[0]
        return WrittenDispute(fetched > 0, matched > 0, event)

    async def drop(self, due: DueFetch) -> bool:
        """Forget the notice about a dispute that is of no payment here; tell if the claim still held."""
        parameters = {"provider": due.provider, "provider_ref": due.provider_ref, "fence": due.fence}
        return bool(await self._session.fetch(SQL["drop"], parameters))


class DisputeLists:
    """The disputes of accounts, for the API and the console. Each method raises StoreUnavailable, or AccountBusy."""

    def __init__(self, url: str, *, timeout: timedelta = timedelta(seconds=5)) -> None:
        sessions = [Session(url, name="disputes", timeout=timeout, in_order=True) for _ in range(CONNECTIONS)]
        self._sessions = FairSessions(sessions)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._sessions.aclose()

    async def get(self, account_id: str, dispute_id: UUID) -> Dispute | None:
        """Return a dispute of the account, None if it has no such dispute."""
        async with self._sessions.lend(account_id) as session:
            found = await session.fetch_repeatable(SQL["get"], {"id": dispute_id, "account_id": account_id})
        return read_dispute(found[0]) if found else None

    async def page(
        self,
        account_id: str,
        *,
        statuses: Collection[DisputeStatus] = (),
        provider: str | None = None,
        payment_id: UUID | None = None,
        limit: int,
        after: UUID | None = None,
    ) -> DisputePage:
        """Return up to `limit` disputes of an account, newest first, those after the id `after`."""
        parameters: dict[str, Any] = {
            "account_id": account_id,
            "statuses": sorted(one.value for one in statuses) or None,
            "provider": provider,
            "payment_id": payment_id,
            "before": after or _LAST,
            "window": WINDOW,
            "limit": limit + 1,
        }
        statement = "newest" if payment_id is None else "of_payment"
        async with self._sessions.lend(account_id) as session:
            found = await session.fetch_repeatable(SQL[statement], parameters)
        disputes = [read_dispute(row) for row in found if row[0] is not None]
        if len(disputes) > limit:
            return DisputePage(disputes[:limit], disputes[limit - 1].id)
        return DisputePage(disputes, found[0][_WIDTH] if found else None)


def read_dispute(row: Row) -> Dispute:
    """Return the dispute in the first columns of a row."""
    columns = [*row[:_WIDTH]]
    columns[_STATUS] = DisputeStatus(columns[_STATUS])
    return Dispute(*columns)
