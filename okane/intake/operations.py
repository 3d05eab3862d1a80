"""Requesting captures, voids and refunds: write the row, which reserves what it moves, then send its wake-up.

Once the row is committed the operation is safe, and the client gets its 202. What no wake-up was sent for, the sweep finds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from uuid import UUID, uuid4

import structlog

from okane.errors import OperationRefused, StatusConflict
from okane.intake.accept import PaymentIntake
from okane.intake.wake_sending import WakeSender
from okane.operation import TERMINAL, NewOperation, Operation, OperationKind
from okane.payment import Payment, Status
from okane.providers.capabilities import NO_CAPABILITIES, Capabilities, lacking_for
from okane.store.operations import OperationDecision, OperationLists, OperationStore
from streams import Draft, Publisher, StreamUnavailable
from streams.failpoints import failpoint
from streams.values import value

log = structlog.get_logger("okane.accept")

BEFORE_WAKE = failpoint(
    "operations.before_wake", "an operation is requested, no wake-up sent", raises=StreamUnavailable
)

VOID_MEANING = hashlib.sha256(b'{"void":true}').digest()


@value
class OperationReceipt:
    """The result of a request: its operation, and whether the request created it and put a wake-up on the stream."""

    operation: Operation
    created: bool
    enqueued: bool


class OperationIntake:
    """The commands that clients and operators give for captures, voids and refunds. `producer` publishes to their stream.

    `capabilities` returns those of the providers that this process knows.
    """

    def __init__(
        self,
        *,
        store: OperationStore,
        lists: OperationLists,
        payments: PaymentIntake,
        producer: Publisher,
        capabilities: Callable[[], Capabilities] = lambda: NO_CAPABILITIES,
    ) -> None:
        self._store = store
        self._lists = lists
        self._payments = payments
        self._capabilities = capabilities
        self._wake_ups = WakeSender(producer, before_send=BEFORE_WAKE)

    async def request(self, new: NewOperation, *, actor: str) -> OperationReceipt:
        """Write an operation, or find the one of an earlier request with this key. Raises PaymentNotFound, OperationRefused,
        VersionConflict, IdempotencyKeyReused, StoreUnavailable."""
        requested = await self._store.request(new, actor=actor)
        operation = requested.operation
        if not requested.created:
            return OperationReceipt(operation, created=False, enqueued=False)
        log.debug(
            "operation_requested",
            operation_id=str(operation.id),
            payment_id=str(operation.payment_id),
            kind=operation.kind.value,
            actor=actor,
        )
        return OperationReceipt(operation, created=True, enqueued=await self.wake(operation))

    def unsupported(self, new: NewOperation, payment: Payment) -> OperationRefused | None:
        """Return the refusal of an operation that the payment's provider cannot execute. None also for a payment that was not
        charged yet, or whose provider is not known here: the store decides then."""
        provider = payment.called_provider
        capabilities = None if provider is None else self._capabilities().get(provider)
        lacks = None if capabilities is None else lacking_for(new, payment, frozenset(capabilities))
        if lacks is None:
            return None
        message = f"the provider {provider} cannot do this: it has no {lacks.replace('_', ' ')}"
        return OperationRefused("unsupported_by_provider", message)

    async def cancel_payment(
        self, payment_id: UUID, *, account_id: str, actor: str, version: int | None = None
    ) -> Payment | OperationReceipt:
        """Withdraw a payment before it is charged; if its money is held, request the void that lets it go.

        One cancel after another finds the void under way. Raises PaymentNotFound, StatusConflict, VersionConflict,
        OperationRefused while a capture is under way, or if its provider cannot let the money go, StoreUnavailable.
        """
        try:
            return await self._payments.cancel(payment_id, account_id=account_id, actor=actor, version=version)
        except StatusConflict as error:
            if error.status != Status.AUTHORIZED:
                raise
        try:
            return await self._void(payment_id, account_id=account_id, actor=actor, version=version)
        except OperationRefused as error:
            # What refused it may have ended before it was read: the void of another request, or a capture.
            if error.code not in ("payment_not_authorized", "operation_in_progress"):
                raise
            if error.code == "operation_in_progress" and await self._is_under_way(payment_id, account_id):
                raise
        try:
            return await self._payments.cancel(payment_id, account_id=account_id, actor=actor, version=version)
        except StatusConflict as error:
            if error.status != Status.AUTHORIZED:
                raise
        # A capture has failed meanwhile.
        return await self._void(payment_id, account_id=account_id, actor=actor, version=version)

    async def _void(
        self, payment_id: UUID, *, account_id: str, actor: str, version: int | None = None
    ) -> OperationReceipt:
        """Request the void of a payment, or return the one under way. Raises OperationRefused, VersionConflict."""
        new = NewOperation(
            payment_id=payment_id,
            account_id=account_id,
            kind=OperationKind.VOID,
            # Each has a key of its own: what makes a repeat find the first is that a payment has one open operation.
            idempotency_key=f"void-{uuid4()}",
            fingerprint=VOID_MEANING,
            version=version,
        )
        payment = await self._payments.get(payment_id, account_id=account_id)
        refusal = self.unsupported(new, payment)
        if refusal is not None and payment.open_operation is None:
            raise refusal
        try:
            return await self.request(new, actor=actor)
        except OperationRefused as error:
            if error.code == "operation_in_progress":
                for operation in await self._lists.of_payment(payment_id, account_id=account_id):
                    if operation.kind is OperationKind.VOID and not operation.status.is_at_rest:
                        return OperationReceipt(operation, created=False, enqueued=False)
            raise

    async def _is_under_way(self, payment_id: UUID, account_id: str) -> bool:
        """Return True if a capture or void of the payment has not ended, or needs a review."""
        return any(
            operation.kind is not OperationKind.REFUND and operation.status not in TERMINAL
            for operation in await self._lists.of_payment(payment_id, account_id=account_id)
        )

    async def cancel(
        self, operation_id: UUID, *, account_id: str | None, actor: str, version: int | None = None
    ) -> Operation:
        """Withdraw an operation before it is executed. Raises OperationNotFound, StatusConflict, VersionConflict,
        StoreUnavailable. Its wake-up stays in the stream: the claim refuses it."""
        operation = await self._store.cancel(operation_id, account_id=account_id, actor=actor, version=version)
        log.info("operation_canceled", operation_id=str(operation.id), kind=operation.kind.value, actor=actor)
        return operation

    async def retry(
        self, operation_id: UUID, *, account_id: str | None, actor: str, version: int | None = None
    ) -> OperationReceipt:
        """Make a failed operation pending again. Raises OperationNotFound, StatusConflict, VersionConflict, OperationRefused
        if what it moves is no longer there, StoreUnavailable."""
        operation = await self._store.retry(operation_id, account_id=account_id, actor=actor, version=version)
        log.info("operation_retried", operation_id=str(operation.id), kind=operation.kind.value, actor=actor)
        return OperationReceipt(operation, created=False, enqueued=await self.wake(operation))

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
        """Write the decision about an operation that needs a review. Raises OperationNotFound, StatusConflict,
        VersionConflict, StoreUnavailable."""
        operation = await self._store.resolve(
            operation_id,
            account_id=account_id,
            decision=decision,
            reason=reason,
            provider_ref=provider_ref,
            actor=actor,
            version=version,
        )
        log.info(
            "operation_resolved",
            operation_id=str(operation.id),
            kind=operation.kind.value,
            status=operation.status.value,
            actor=actor,
        )
        return operation

    async def wake(self, operation: Operation) -> bool:
        """Send the wake-up of an operation; return whether Redis took it. What it did not take, the sweep sends."""
        if not self._wake_ups.count_sendable(1):
            return False
        [taken] = await self._wake_ups.send([Draft(operation.id.bytes, lane=operation.kind.value)])
        return taken
