"""Read and write captures, voids and refunds in Postgres, one method per transaction.

A request and a final outcome also change the payment, in the same statement. Concurrent calls of one method share a round
trip, and time is the database's, as in `payments`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from okane.errors import OperationRefused, PaymentNotFound, StoreUnavailable
from okane.operation import NewOperation, Operation, OperationKind
from okane.payment import LATE_LOOK_UPS
from okane.store import sql_files
from okane.store.attempts import renew_leases, write_outcomes
from okane.store.claims import ONLY_HTTP
from okane.store.group_commit import GroupCommit
from okane.store.operation_claims import OperationClaimStatements
from okane.store.operation_lists import OperationLists
from okane.store.operation_records import (
    OperationClaim,
    OperationRefusal,
    OperationSettlement,
    OperationWakeUp,
    RequestedOperation,
)
from okane.store.operation_requests import Asked, RequestStatements
from okane.store.operation_transitions import OperationDecision, OperationTransitions
from okane.store.payment_layout import PaymentLayout
from okane.store.records import UsableProvider
from okane.store.session import Session
from okane.store.sql_parameters import milliseconds
from okane.store.sweep import LONGEST_QUEUE
from streams import Coalescer
from streams.failpoints import failpoint

__all__ = ["OperationDecision", "OperationLists", "OperationStore"]

BATCHED = sql_files.prepare_statements("operations.sql", "settle", "settled_before", "renew", blocks_of="payments.sql")
DUE = sql_files.load_statements("operations.sql", blocks_of="payments.sql")["due"]

AFTER_SETTLE = failpoint(
    "operate.after_settle", "outcomes of operations committed, the reply lost", raises=StoreUnavailable
)


class OperationStore(OperationTransitions):
    """The operations in one Postgres database. `actor` is written into every event that has no actor of its own."""

    def __init__(
        self,
        url: str,
        *,
        actor: str,
        lease: timedelta,
        grace: timedelta,
        late_look_ups: Sequence[timedelta] = LATE_LOOK_UPS,
        timeout: timedelta = timedelta(seconds=10),
        on_batch: Callable[[str, int], None] | None = None,
        on_round_trip: Callable[[str, float], None] | None = None,
    ) -> None:
        # The providers that can be called from here now; replaced by workers that have others.
        self.usable_providers: Callable[[], Sequence[UsableProvider]] = lambda: ONLY_HTTP
        self._lease = lease
        self._group = GroupCommit(url, timeout=timeout, on_batch=on_batch, on_round_trip=on_round_trip)
        session = self._group.session("operations", index_only=True)
        super().__init__(session, actor=actor, grace=grace, late_look_ups=late_look_ups)
        claims = OperationClaimStatements(
            actor=actor, lease=lease, grace=grace, usable=lambda: [one.name for one in self.usable_providers()]
        )
        self._layout = PaymentLayout()
        batched = self._group.batched
        self._requesting = batched("request", RequestStatements(grace=grace).request)
        self._claiming: Coalescer[UUID, OperationClaim | OperationRefusal] = batched("claim_operation", claims.claim)
        self._settling = batched("settle_operation", self._settle)
        self._renewing = batched("renew_operation", self._renew)

    async def aclose(self) -> None:
        """Close every connection. Statements in flight fail with StoreUnavailable."""
        await self._group.aclose()

    async def request(self, new: NewOperation, *, actor: str | None = None) -> RequestedOperation:
        """Reserve what the operation moves in its payment's row, and write it; or return the one that its key has made.

        `actor` None: the store's. Raises PaymentNotFound, also for a payment of another account; OperationRefused;
        VersionConflict if the payment has changed since the request's version of it, unless its key has made one already;
        IdempotencyKeyReused if the key belongs to an operation of another meaning.
        """
        try:
            return await self._requesting.submit(Asked(new, actor or self._actor))
        except PaymentNotFound:
            raise await self._layout.missing(self._rare, new.payment_id) from None

    async def void_expired(self, payment_id: UUID, *, is_over: bool = False) -> Operation | None:
        """Request the void of a payment whose authorization is about to end, or `is_over` already. Return the operation, None
        if nothing is due."""
        new = NewOperation(
            payment_id=payment_id,
            account_id=None,
            kind=OperationKind.VOID,
            idempotency_key="",
            fingerprint=b"",
            reason="the provider holds the money no longer" if is_over else "the authorization ends",
        )
        try:
            return (await self._requesting.submit(Asked(new, self._actor, is_expiry=True, is_over=is_over))).operation
        except (OperationRefused, PaymentNotFound):
            return None

    async def claim(self, operation_id: UUID) -> OperationClaim | OperationRefusal:
        """Take the sole right to call the provider for an operation, for the length of the lease."""
        return await self._claiming.submit(operation_id)

    async def settle(self, settlement: OperationSettlement) -> timedelta | None:
        """Write an outcome under its attempt. Return the operation's age, or None if the attempt has lost the operation.

        Repeatable after StoreUnavailable: an outcome that is already there counts as written.
        """
        return await self._settling.submit(settlement)

    async def renew(self, operation_id: UUID, attempt: int) -> bool:
        """Extend the lease of this attempt. Return False if it has lost the operation."""
        return await self._renewing.submit((operation_id, attempt))

    async def due(
        self, lanes: Mapping[str, timedelta | None], *, limit: int, by_retry_at: bool = False
    ) -> Sequence[OperationWakeUp]:
        """Take up to `limit` overdue operations of these lanes (kinds), as `SweepStore.take_due` takes payments.

        Those in a live claim take places of the limit, but get no wake-up.
        """
        again_ms = [milliseconds(self._grace + min(age or timedelta(0), LONGEST_QUEUE)) for age in lanes.values()]
        early_ms = milliseconds(self._grace) if by_retry_at else 0
        parameters = {"lanes": list(lanes), "again_ms": again_ms, "limit": limit, "early_ms": early_ms}
        return [
            OperationWakeUp(operation_id, lane, scheduled)
            for operation_id, lane, scheduled, in_work in await self._rare.fetch(DUE, parameters)
            if not in_work
        ]

    async def _renew(self, session: Session, batch: Sequence[tuple[UUID, int]]) -> Sequence[bool]:
        return await renew_leases(session, BATCHED["renew"], batch, {"lease_ms": milliseconds(self._lease)})

    async def _settle(self, session: Session, batch: Sequence[OperationSettlement]) -> Sequence[timedelta | None]:
        parameters = {"actor": self._actor, "grace_ms": milliseconds(self._grace), "late_ms": min(self._late_ms)}
        return await write_outcomes(
            session,
            BATCHED,
            batch,
            parameters,
            id_of=operator.attrgetter("operation_id"),
            more_columns=lambda _ordered: {},
            after=AFTER_SETTLE,
        )
