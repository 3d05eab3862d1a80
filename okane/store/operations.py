"""Read and write captures, voids and refunds in Postgres, one method per transaction.

A request and a final outcome also change the payment, in the same statement. Time is the database's, as in `payments`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from okane.operation import NewOperation, Operation, OperationStatus
from okane.store.claims import ONLY_HTTP
from okane.store.operation_records import (
    LateOperationLookUp,
    OperationClaim,
    OperationEvent,
    OperationFilter,
    OperationPage,
    OperationRefusal,
    OperationSettlement,
    OperationWakeUp,
    RequestedOperation,
)
from okane.store.records import UsableProvider

OperationDecision = Literal[OperationStatus.SUCCESS, OperationStatus.FAILED_FINAL]


class OperationStore:
    """The operations in one Postgres database. `actor` is written into every event that has no actor of its own."""

    def __init__(
        self,
        url: str,
        *,
        actor: str,
        lease: timedelta,
        grace: timedelta,
        timeout: timedelta = timedelta(seconds=10),
        on_batch: Callable[[str, int], None] | None = None,
        on_round_trip: Callable[[str, float], None] | None = None,
    ) -> None:
        # The providers that can be called from here now; replaced by workers that have others.
        self.usable_providers: Callable[[], Sequence[UsableProvider]] = lambda: ONLY_HTTP

    async def aclose(self) -> None:
        """Close every connection. Statements in flight fail with StoreUnavailable."""
        raise NotImplementedError

    async def request(self, new: NewOperation, *, actor: str | None = None) -> RequestedOperation:
        """Reserve what the operation moves in its payment's row, and write it; or return the one that its key has made.

        `actor` None: the store's. Raises PaymentNotFound, also for a payment of another account; OperationRefused;
        IdempotencyKeyReused if the key belongs to an operation of another meaning.
        """
        raise NotImplementedError

    async def void_expired(self, payment_id: UUID) -> Operation | None:
        """Request the void of a payment whose authorization is about to end. Return the operation, None if nothing is due."""
        raise NotImplementedError

    async def claim(self, operation_id: UUID) -> OperationClaim | OperationRefusal:
        """Take the sole right to call the provider for an operation, for the length of the lease."""
        raise NotImplementedError

    async def settle(self, settlement: OperationSettlement) -> timedelta | None:
        """Write an outcome under its attempt. Return the operation's age, or None if the attempt has lost the operation.

        Repeatable after StoreUnavailable: an outcome that is already there counts as written.
        """
        raise NotImplementedError

    async def renew(self, operation_id: UUID, attempt: int) -> bool:
        """Extend the lease of this attempt. Return False if it has lost the operation."""
        raise NotImplementedError

    async def record_late(self, settlement: OperationSettlement, *, once: bool = False) -> OperationStatus | None:
        """Record an outcome that came after the operation was lost or closed. Return the operation's status after it, None
        if there is no such operation. With `once`, what the operation already shows is not recorded again.

        Money that moved for an operation that had failed or was canceled makes it `needs_review`. `failed_final` for a refund
        that had succeeded makes it that, and gives back what it had reserved.
        """
        raise NotImplementedError

    async def bury(self, operation_id: UUID, *, reason: str) -> bool:
        """Move an open operation to needs_review. Return False if it is settled, in a live claim, or does not exist."""
        raise NotImplementedError

    async def cancel(
        self, operation_id: UUID, *, account_id: str | None, actor: str, version: int | None = None
    ) -> Operation:
        """Cancel an operation that no worker has in hand and whose outcome is known; a canceled one stays canceled.

        `account_id` None: of any account. Raises OperationNotFound, StatusConflict, VersionConflict.
        """
        raise NotImplementedError

    async def retry(
        self, operation_id: UUID, *, account_id: str | None, actor: str, version: int | None = None
    ) -> Operation:
        """Make a failed operation pending again. What a final failure gave back is reserved again.

        Raises OperationNotFound, StatusConflict, VersionConflict, or OperationRefused if that is no longer there.
        """
        raise NotImplementedError

    async def resolve(
        self,
        operation_id: UUID,
        *,
        account_id: str | None,
        decision: OperationDecision,
        reason: str,
        provider_ref: str | None,
        actor: str,
        version: int | None = None,
    ) -> Operation:
        """Decide an operation that needs a review; repeating the decision changes nothing. `provider_ref`: what the operator
        has found. Raises OperationNotFound, StatusConflict, VersionConflict.
        """
        raise NotImplementedError

    async def begin_late_look_up(self, operation_id: UUID, *, again: Sequence[timedelta]) -> LateOperationLookUp | None:
        """Begin the look-up of a closed operation that the sweep has sent; None if there is none to do. As for payments."""
        raise NotImplementedError

    async def plan_late_look_up(self, operation: Operation, *, begun_at: datetime) -> None:
        """Plan the late look-up after the one that began at `begun_at`, or none after the last."""
        raise NotImplementedError

    async def fail_late_look_up(self, operation: Operation, *, reason: str) -> bool:
        """Move a closed operation without a look-up result to needs_review. Return False if it has changed."""
        raise NotImplementedError

    async def due(
        self, lanes: Mapping[str, timedelta | None], *, limit: int, by_retry_at: bool = False
    ) -> Sequence[OperationWakeUp]:
        """Take up to `limit` overdue operations of these lanes (kinds), as `SweepStore.take_due` takes payments."""
        raise NotImplementedError

    async def get(self, operation_id: UUID, *, account_id: str | None = None) -> Operation:
        """Return the operation as it is now. Raises OperationNotFound, also for one of another account (None: any)."""
        raise NotImplementedError

    async def events(self, operation_id: UUID) -> Sequence[OperationEvent]:
        """Return the events of an operation, oldest first; its request is version 0. Empty if it does not exist."""
        raise NotImplementedError


class OperationLists:
    """Read lists of operations. Each method raises StoreUnavailable, or AccountBusy."""

    def __init__(self, url: str, *, timeout: timedelta = timedelta(seconds=5)) -> None:
        self._url = url

    async def aclose(self) -> None:
        """Close the connections."""
        raise NotImplementedError

    async def page(
        self, wanted: OperationFilter, *, account_id: str, limit: int, after: UUID | None = None
    ) -> OperationPage:
        """Return up to `limit` operations of an account in the order of the filter, those after the id `after`."""
        raise NotImplementedError

    async def of_payment(self, payment_id: UUID, *, account_id: str | None) -> Sequence[Operation]:
        """Return the operations of a payment, oldest first. Raises PaymentNotFound; `account_id` None: of any account."""
        raise NotImplementedError
