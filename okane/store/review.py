"""The payments of all accounts that need a review, for `okane review`. (`PaymentStore.resolve` decides them.)"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from okane.errors import PaymentNotFound
from okane.payment import Payment
from okane.store import columns, sql_files
from okane.store.session import Session

SQL = sql_files.load_statements("review.sql")
_LAST = UUID(int=2**128 - 1)


class ReviewStore:
    """Read payments that need a review."""

    def __init__(self, url: str, *, timeout: timedelta = timedelta(seconds=10)) -> None:
        self._session = Session(url, name="review", timeout=timeout, index_only=True)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._session.aclose()

    async def page(self, limit: int, *, account_id: str | None = None, before: UUID | None = None) -> Sequence[Payment]:
        """Return up to `limit` payments that need a review, newest first, from before the id `before`."""
        parameters = {"limit": limit, "account_id": account_id, "before": before or _LAST}
        return [columns.read_payment(row) for row in await self._session.fetch_repeatable(SQL["waiting"], parameters)]

    async def find(self, payment_id: UUID) -> Payment:
        """Return a payment of any account. Raises PaymentNotFound."""
        found = await self._session.fetch_repeatable(SQL["one"], {"id": payment_id})
        if not found:
            raise PaymentNotFound(f"there is no payment {payment_id}")
        return columns.read_payment(found[0])
