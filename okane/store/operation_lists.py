"""Lists of captures, voids and refunds, for the API.

Guarantee: as for lists of payments, a page reads a bounded number of rows, and lists use connections of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from okane.operation import Operation
from okane.store import columns, sql_files
from okane.store.fair_sessions import FairSessions
from okane.store.operation_records import OperationFilter, OperationPage
from okane.store.payment_layout import PaymentLayout
from okane.store.session import Session
from okane.store.sql_parameters import first_id

SQL = sql_files.load_statements("operation_lists.sql")
_NEWEST_FIRST = {name: text.replace("{order}", "DESC") for name, text in SQL.items()}
_OLDEST_FIRST = {name: text.replace("{order}", "ASC") for name, text in SQL.items()}

CONNECTIONS = 3  # of one process; one account uses two of them
WINDOW = 10_000  # rows that one page may read
MAX_OF_PAYMENT = 1_000  # the oldest ones
# The largest difference between the clock of an API process, which makes the id, and of the database, which writes the time.
SKEW = timedelta(seconds=5)
_FIRST, _LAST = UUID(int=0), UUID(int=2**128 - 1)


class OperationLists:
    """Read lists of operations. Each method raises StoreUnavailable, or AccountBusy."""

    def __init__(self, url: str, *, timeout: timedelta = timedelta(seconds=5)) -> None:
        sessions = [Session(url, name="operation lists", timeout=timeout, in_order=True) for _ in range(CONNECTIONS)]
        self._sessions = FairSessions(sessions)
        self._layout = PaymentLayout()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._sessions.aclose()

    async def page(
        self, wanted: OperationFilter, *, account_id: str, limit: int, after: UUID | None = None
    ) -> OperationPage:
        """Return up to `limit` operations of an account in the order of the filter, those after the id `after`."""
        statements = _OLDEST_FIRST if wanted.ascending else _NEWEST_FIRST
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
            "window": WINDOW,
            "limit": limit + 1,
        }
        statement = _choose_statement(statements, wanted)
        async with self._sessions.lend(account_id) as session:
            found = await session.fetch_repeatable(statement, parameters)
        operations = [columns.read_operation(row) for row in found if row[0] is not None]
        if len(operations) > limit:
            return OperationPage(operations[:limit], operations[limit - 1].id)
        return OperationPage(operations, found[0][columns.OPERATION_WIDTH] if found else None)

    async def of_payment(self, payment_id: UUID, *, account_id: str | None) -> Sequence[Operation]:
        """Return the operations of a payment, oldest first, up to `MAX_OF_PAYMENT`. Raises PaymentNotFound.

        `account_id` None: of any account.
        """
        parameters = {"payment_id": payment_id, "account_id": account_id, "limit": MAX_OF_PAYMENT}
        async with self._sessions.lend(account_id or "") as session:
            found = await session.fetch_repeatable(SQL["of_payment"], parameters)
            if not found:
                raise await self._layout.missing(session, payment_id)
        return [columns.read_operation(row) for row in found if row[0] is not None]


def _choose_statement(statements: Mapping[str, LiteralString], wanted: OperationFilter) -> LiteralString:
    if wanted.idempotency_key is not None:
        return statements["of_key"]
    return statements["newest" if wanted.payment_id is None else "newest_of_payment"]


def _parameters(wanted: OperationFilter) -> dict[str, Any]:
    return {
        "kinds": sorted(wanted.kinds) or None,
        "statuses": sorted(wanted.statuses) or None,
        "payment_id": wanted.payment_id,
        "currency": wanted.currency,
        "created_from": wanted.created_from,
        "created_before": wanted.created_before,
        "idempotency_key": wanted.idempotency_key,
    }


def _first_id(moment: datetime | None, shift: timedelta) -> UUID | None:
    return None if moment is None else first_id(moment.timestamp() + shift.total_seconds())
