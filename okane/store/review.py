"""The payments and operations that need a review, for `okane review` and the console. (Their stores decide them.)"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from okane.operation import Operation
from okane.payment import Payment
from okane.store import columns, sql_files
from okane.store.payment_layout import PaymentLayout
from okane.store.session import Session

SQL = sql_files.load_statements("review.sql")
OPERATION_WINDOW = 10_000  # of the operations that were given up, so many are looked through
_LAST = UUID(int=2**128 - 1)


class ReviewStore:
    """Read payments and operations that need a review."""

    def __init__(self, url: str, *, timeout: timedelta = timedelta(seconds=10)) -> None:
        self._session = Session(url, name="review", timeout=timeout, index_only=True)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._session.aclose()

    async def page(self, limit: int, *, account_id: str | None = None, before: UUID | None = None) -> Sequence[Payment]:
        """Return up to `limit` payments that need a review, newest first, from before the id `before`."""
        parameters = {"limit": limit, "account_id": account_id, "before": before or _LAST}
        return [columns.read_payment(row) for row in await self._session.fetch_repeatable(SQL["waiting"], parameters)]

    async def operations(self, limit: int, *, account_id: str) -> Sequence[Operation]:
        """Return up to `limit` captures, voids and refunds of an account that need a review, newest first, of the newest
        `OPERATION_WINDOW` of all accounts that were given up."""
        parameters = {"limit": limit, "account_id": account_id, "window": OPERATION_WINDOW}
        found = await self._session.fetch_repeatable(SQL["operations"], parameters)
        return [columns.read_operation(row) for row in found]

    async def find(self, payment_id: UUID) -> Payment:
        """Return a payment of any account. Raises PaymentNotFound, and PaymentArchived."""
        found = await self._session.fetch_repeatable(SQL["one"], {"id": payment_id})
        if not found:
            raise await PaymentLayout().missing(self._session, payment_id)
        return columns.read_payment(found[0])
