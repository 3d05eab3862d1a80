"""The captures, voids and refunds of all accounts that were given up or need a review, for operators.

(`OperationStore.retry` and `OperationStore.resolve` take them off the list.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from okane.operation import Operation, OperationStatus
from okane.store import columns, sql_files
from okane.store.dead_letters import Place
from okane.store.prepared_statements import Row
from okane.store.session import Session
from okane.store.sql_parameters import milliseconds

SQL = sql_files.load_statements("dead_operations.sql", blocks_of="operations.sql")
_LAST = UUID(int=2**128 - 1)


@dataclass(frozen=True, slots=True)
class DeadOperation:
    """An operation that was given up, and the time of that."""

    operation: Operation
    dead_at: datetime

    @property
    def place(self) -> Place:
        """The position in the list."""
        return self.dead_at, self.operation.id


class DeadOperationStore:
    """Read and dismiss dead operations. Each method raises StoreUnavailable."""

    def __init__(self, url: str, *, timeout: timedelta = timedelta(seconds=10)) -> None:
        self._session = Session(url, name="dead operations", timeout=timeout, in_order=True)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._session.aclose()

    async def page(
        self,
        limit: int,
        *,
        before: Place | None = None,
        status: OperationStatus | None = None,
        account_id: str | None = None,
    ) -> Sequence[DeadOperation]:
        """Return up to `limit` of them, newest first, from the position `before` on."""
        before_dead_at, before_id = before or ("infinity", _LAST)
        parameters = {
            "before_dead_at": before_dead_at,
            "before_id": before_id,
            "status": None if status is None else status.value,
            "account_id": account_id,
            "limit": limit,
        }
        return [_read(row) for row in await self._session.fetch_repeatable(SQL["page"], parameters)]

    async def oldest(self, limit: int | None) -> Sequence[DeadOperation]:
        """Return the oldest first, all of them without a limit."""
        return [_read(row) for row in await self._session.fetch_repeatable(SQL["oldest"], {"limit": limit})]

    async def find_many(self, ids: Sequence[UUID]) -> Sequence[DeadOperation]:
        """Return those of these operations that were given up, in no order."""
        return [_read(row) for row in await self._session.fetch_repeatable(SQL["some"], {"ids": list(ids)})]

    async def preview_retries(self, dead: Sequence[DeadOperation]) -> Sequence[bool]:
        """Return for each of these whether `OperationStore.retry` would retry it, called for all in this order now."""
        parameters = {
            "ids": [one.operation.id for one in dead],
            "versions": [one.operation.version for one in dead],
        }
        found = {row[0]: row[1:] for row in await self._session.fetch_repeatable(SQL["retries"], parameters)}
        left = dict[tuple[UUID, bool], int]()
        retried = list[bool]()
        for one in dead:
            # One that was named before has another version by then.
            payment_id, is_refund, takes, room = found.pop(one.operation.id, (one.operation.payment_id, False, None, 0))
            has = left.setdefault((payment_id, is_refund), room)
            retried.append(takes is not None and takes <= has)
            if retried[-1]:
                left[payment_id, is_refund] = has - takes
        return retried

    async def dismiss(
        self, *, ids: Sequence[UUID] | None = None, older_than: timedelta | None = None
    ) -> Sequence[UUID]:
        """Dismiss these (None: all) that are older than `older_than` (None: of any age); return their ids. One that needs a
        review stays until it is decided."""
        older_than_ms = None if older_than is None else milliseconds(older_than)
        wanted = {"ids": None if ids is None else list(ids), "older_than_ms": older_than_ms}
        return [row[0] for row in await self._session.fetch_repeatable(SQL["dismiss"], wanted)]


def _read(row: Row) -> DeadOperation:
    return DeadOperation(columns.read_operation(row), row[columns.OPERATION_WIDTH])
