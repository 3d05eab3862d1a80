"""The journals of disputes: the gateway's books, and the rows and events of Postgres."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, LiteralString

import aiohttp
import psycopg

from torture.gateway import books

__all__ = ["BookedDispute", "DisputeHistory", "DisputeRow", "DisputeStep", "are_fetched", "read_disputes"]

# From Stripe's documents, and not from okane's code, which is under test.
_STATUSES: Final[Mapping[str, str]] = {
    "warning_needs_response": "needs_response",
    "needs_response": "needs_response",
    "warning_under_review": "under_review",
    "under_review": "under_review",
    "warning_closed": "closed",
    "prevented": "closed",
    "won": "won",
    "lost": "lost",
}
_TIMEOUT: Final = aiohttp.ClientTimeout(total=2)

_ROWS: LiteralString = "SELECT provider_ref, payment_id::text, amount_minor, currency, status FROM disputes"
_STEPS: LiteralString = "SELECT payment_id::text, version, provider_ref, status FROM dispute_events"
# A fetch that failed, or whose worker died, is due again a minute after its claim, and later each time. No run waits for
# that: after a few seconds the time counts as passed.
_HURRY: LiteralString = """
    WITH late AS (
        UPDATE dispute_notices SET due_at = now()
        WHERE tries > 0
          AND due_at BETWEEN now() + interval '1 s'
              AND now() - interval '3 s' + least(60 * 2 ^ least(tries - 1, 6), 3600) * interval '1 s'
    )
    SELECT count(*) FROM dispute_notices"""


@dataclass(frozen=True, slots=True)
class BookedDispute:
    """A dispute in the gateway's books, with the status that okane has for Stripe's."""

    ref: str
    payment_id: str
    amount_minor: int
    currency: str
    status: str


@dataclass(frozen=True, slots=True)
class DisputeRow:
    """One row of `disputes`."""

    ref: str
    payment_id: str
    amount_minor: int
    currency: str
    status: str

    @property
    def is_over(self) -> bool:
        return self.status in ("won", "lost", "closed")


@dataclass(frozen=True, slots=True)
class DisputeStep:
    """One row of `dispute_events`: the dispute of one event of a payment."""

    payment_id: str
    version: int
    ref: str
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DisputeHistory:
    """The journals of one run."""

    booked: Sequence[BookedDispute] = ()
    rows: Sequence[DisputeRow] = ()
    steps: Sequence[DisputeStep] = ()


async def are_fetched(database_url: str, gateway_url: str) -> bool:
    """Return True if no dispute or refund of the gateway will change, and all disputes are fetched.

    False also while one of the two does not answer. Nothing waits for the minutes until a fetch is repeated: they are over.
    """
    with contextlib.suppress(psycopg.Error, aiohttp.ClientError, TimeoutError):
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as http, http.get(f"{gateway_url}/health") as answer:
            if (await answer.json())["busy"]:
                return False
        async with await psycopg.AsyncConnection.connect(database_url, connect_timeout=2) as connection:
            row = await (await connection.execute(_HURRY)).fetchone()
            return row is not None and row[0] == 0
    return False


async def read_disputes(database_url: str, journal: Path) -> DisputeHistory:
    """Return the disputes of both sides."""
    booked = await asyncio.to_thread(read_booked, journal)
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        rows = await (await connection.execute(_ROWS)).fetchall()
        steps = await (await connection.execute(_STEPS)).fetchall()
    return DisputeHistory(
        booked=booked, rows=[DisputeRow(*row) for row in rows], steps=[DisputeStep(*step) for step in steps]
    )


def read_booked(journal: Path) -> Sequence[BookedDispute]:
    """Return the disputes in the gateway's journal, as they are in the end."""
    return [
        BookedDispute(one.ref, one.payment_id, one.amount, one.currency.upper(), _STATUSES[one.status])
        for one in books.read_disputes(journal)
    ]
