"""The parts that bring operations to the stream in a worker: the sweep's view of them, and the void of an authorization that
is about to end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

import structlog

from okane.store.operation_records import OperationWakeUp
from okane.store.operations import OperationStore
from okane.store.sweep import MarkResult
from streams import Draft, Publisher, StreamError
from streams.failpoints import failpoint

log = structlog.get_logger("okane.operate")

BEFORE_VOID_WAKE = failpoint("void.before_wake", "the void of an authorization that ends is written, no wake-up sent")

_NONE_LOST = MarkResult(lost=0, more=False)


class SweptOperations:
    """The operations, as the sweep sees them. An open one always carries the time of its next look: none is ever lost."""

    def __init__(self, store: OperationStore) -> None:
        self._store = store

    async def advance_horizon(self) -> None:
        """Do nothing: there are no cursors."""

    async def mark_lost(self, lane: str, oldest_entry: timedelta | None) -> MarkResult:
        """Do nothing."""
        return _NONE_LOST

    async def take_due(
        self, lanes: Mapping[str, timedelta | None], *, limit: int, by_retry_at: bool = False
    ) -> Sequence[OperationWakeUp]:
        """Take up to `limit` overdue operations of these lanes."""
        return await self._store.due(lanes, limit=limit, by_retry_at=by_retry_at)


class EndingAuthorizations:
    """The voids that okane itself requests, before an authorization ends that was not captured."""

    def __init__(self, store: OperationStore, publisher: Publisher) -> None:
        self._store = store
        self._publisher = publisher

    async def void(self, payment_id: UUID, *, is_over: bool = False) -> bool:
        """Request the void of the payment's authorization if it is about to end or `is_over`, and wake it; the sweep sends a
        wake-up that could not be sent. Return False if nothing is due. Raises StoreUnavailable; it may be repeated then."""
        operation = await self._store.void_expired(payment_id, is_over=is_over)
        if operation is None:
            return False
        log.info("authorization_ends", payment_id=str(payment_id), operation_id=str(operation.id))
        if BEFORE_VOID_WAKE.armed:
            await BEFORE_VOID_WAKE.hit()
        try:
            await self._publisher.publish_many([Draft(operation.id.bytes, lane=operation.kind.value)])
        except StreamError as error:
            log.debug("void_not_woken", operation_id=str(operation.id), reason=str(error))
        return True
