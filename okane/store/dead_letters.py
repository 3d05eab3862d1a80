"""The dead letters as Postgres knows them: payments that were given up, until somebody has looked after them.

The dead-letter stream in Redis says the same to whoever reads it; this is the truth, and outlives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from okane.payment import Payment
from okane.store import rows, statements
from okane.store.prepared import Row
from okane.store.session import Session

SQL = statements.load("dead_letters.sql")

Place = tuple[datetime, UUID]


@dataclass(frozen=True, slots=True)
class DeadPayment:
    """A payment that was given up, and when."""

    payment: Payment
    dead_at: datetime

    @property
    def place(self) -> Place:
        """Where it stands in the list."""
        return self.dead_at, self.payment.id


class DeadLetterStore:
    """Reads and dismisses dead letters. To try a payment again is `PaymentStore.retry`, which dismisses it, too."""

    def __init__(self, url: str, *, timeout: timedelta = timedelta(seconds=10)) -> None:
        self._session = Session(url, name="dead letters", timeout=timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._session.aclose()

    async def page(self, limit: int, *, before: Place | None = None) -> Sequence[DeadPayment]:
        """The newest, or those that come after this place; newest first."""
        dead_at, payment_id = before or (None, None)
        wanted = {"limit": limit, "before_dead_at": dead_at, "before_id": payment_id}
        return _read(await self._session.rows_repeatably(SQL["page"], wanted))

    async def oldest(self, limit: int | None) -> Sequence[DeadPayment]:
        """The oldest, oldest first; all of them without a limit."""
        return _read(await self._session.rows_repeatably(SQL["oldest"], {"limit": limit}))

    async def some(self, ids: Sequence[UUID]) -> Sequence[DeadPayment]:
        """Those of these payments that are dead letters, in no order."""
        return _read(await self._session.rows_repeatably(SQL["some"], {"ids": list(ids)}))

    async def dismiss(
        self, *, ids: Sequence[UUID] | None = None, older_than: timedelta | None = None
    ) -> Sequence[UUID]:
        """Strike these (None: all) that are older than so long (None: of any age) off the list. The payments that were."""
        older_than_ms = None if older_than is None else round(older_than.total_seconds() * 1000)
        wanted = {"ids": None if ids is None else list(ids), "older_than_ms": older_than_ms}
        return [row[0] for row in await self._session.rows_repeatably(SQL["dismiss"], wanted)]


def _read(found: Sequence[Row]) -> list[DeadPayment]:
    return [DeadPayment(rows.payment(row), row[rows.WIDTH]) for row in found]
