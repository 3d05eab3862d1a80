"""The audit of captures, voids and refunds: the invariants I21, I22 and I26 to I32 of torture, and rules on every call."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from okane.operation import Operation, OperationStatus
from okane.payment import Status
from okane.providers.base import Approved, Declined, OperationLookUp, Pending
from okane.store import history
from streams import Stream
from tests.simulation.audit import Audit
from tests.simulation.operations.bank import BookedMove, OperatingBank
from tests.simulation.operations.tables import OPEN, OperationTables
from tests.simulation.provider import Charge
from tests.simulation.redis import Server
from tests.simulation.redis_streams import Entries, Id
from tests.simulation.store import PaymentRow
from torture.history.journals import Charge as JournalCharge
from torture.history.journals import History
from torture.history.operations import Move, OperationHistory, OperationRequest
from torture.invariants import operation_timelines, operations, timelines

CHECKS = (
    operations.captured_is_authorized,
    operations.refunded_is_captured,
    operations.one_move_per_operation,
    operations.success_means_moved,
    operations.nothing_follows_a_void,
    operations.amounts_are_sums,
    operation_timelines.acknowledged_operations_exist,
    operation_timelines.operations_are_decided,
    operation_timelines.operations_are_claimed,
    timelines.terminal_statuses_stay,
)


class OperationAudit(Audit):
    """The audit of one run with operations."""

    tables: OperationTables
    bank: OperatingBank

    def __init__(self, *arguments: Any, operations_stream: Stream, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.requests: list[OperationRequest] = []
        self._operation_lanes = [key.encode() for key in operations_stream.lane_keys]
        self._operation_delayed = operations_stream.delayed_key.encode()
        self._operations_looked_up: set[tuple[UUID, int]] = set()
        self._operation_answers: dict[tuple[UUID, int], list[OperationLookUp]] = defaultdict(list)
        self._gone: list[tuple[bytes, Id, bytes]] = []

    # Every step in Redis

    def deleting(self, key: bytes, entry: Id, fields: Sequence[bytes], *, pending: bool, trimmed: bool) -> None:
        super().deleting(key, entry, fields, pending=pending, trimmed=trimmed)
        if key in self._operation_lanes:
            self._gone.append((key, entry, dict(zip(fields[::2], fields[1::2], strict=True)).get(b"b", b"")))

    def replied(self, *arguments: Any) -> None:
        super().replied(*arguments)
        gone, self._gone = self._gone, []
        for key, entry, body in gone:
            self._check_gone(arguments[-1], key, entry, body)

    def _check_gone(self, server: Server, key: bytes, entry: Id, body: bytes) -> None:
        row = self.tables.rows.get(UUID(bytes=body)) if len(body) == 16 else None
        if row is None or row.status.is_at_rest:
            return
        if row.sweep_at is not None and any(one.event == "retried" for one in self.tables.events[row.id]):
            return  # as for payments: retried by hand while this entry of its former life was being settled
        delayed = server.keys.get(self._operation_delayed, {})
        if isinstance(delayed, dict) and any(body in member for member in delayed):
            return
        if row.status is OperationStatus.PROCESSING and (key, entry) in self._poisoned:
            return
        self.report(f"{key.decode()} {entry} was removed, and {row.kind} {row.id} is {row.status} without a wake-up")

    # Every call of the provider

    def operated(self, operation: Operation) -> None:
        """Check a call that is about to execute an operation."""
        row = self.tables.rows[operation.id]
        about = f"{operation.kind} {operation.id}"
        if row.attempts != operation.attempts or row.status is not OperationStatus.PROCESSING:
            self.report(f"{about} is executed under attempt {operation.attempts}, which does not hold it")
            return
        if row.lease_until is None or row.lease_until <= self.tables.db.now():
            self.report(f"{about} is executed under attempt {operation.attempts}, whose lease has run out")
        before = [one for one in self.tables.events[row.id] if one.attempt < operation.attempts]
        is_open = bool(before) and before[-1].status in OPEN
        if is_open and (operation.id, operation.attempts) not in self._operations_looked_up:
            self.report(f"{about} is executed again without a look-up while its outcome is open")

    def operation_looked_up(self, operation: Operation) -> None:
        """Note a look-up that is about to be made."""
        self._operations_looked_up.add((operation.id, operation.attempts))

    def operation_answered(self, operation: Operation, result: OperationLookUp) -> None:
        """Note an answer, as the adapter has read it."""
        self._operation_answers[operation.id, operation.attempts].append(result)

    # At the end

    def settled(self, server: Server) -> bool:
        looked_up = all(row.sweep_at is None for row in self.tables.rows.values())
        return super().settled(server) and looked_up and not self._operations_left(server)

    def payments_rest(self) -> bool:
        """Return True if all payments and operations have come to rest; money that is held waits for its end."""
        return super().payments_rest() and all(row.status.is_at_rest for row in self.tables.rows.values())

    def rests(self, row: PaymentRow) -> bool:
        """Return True also for an authorization whose capture or void waits for a human."""
        operation = None if row.open_operation is None else self.tables.rows[row.open_operation]
        waits = operation is not None and operation.status is OperationStatus.NEEDS_REVIEW
        return super().rests(row) or (row.status is Status.AUTHORIZED and waits)

    def check_unrepaired(self) -> None:
        """I11 for payments that hold no money: the sweep ends an authorization. The notice of a refund is one of its own."""
        for row in self.tables.db.payments.values():
            if row.sweeps > (row.execute_at is not None) and not row.manual_capture:
                self.report(f"I11: nothing went wrong, and the sweep had to wake {row.id}")

    def conclude(self, server: Server, charges: Iterable[Charge]) -> None:
        super().conclude(server, charges)
        history = self._history(self.bank.charges())
        for check in CHECKS:
            for violation in check(history):
                self.report(f"{violation.invariant}: {violation.subject}: {violation.what} ({violation.evidence})")
        for left in self._operations_left(server):
            self.report(f"I10: {left}")
        self._check_outcomes()
        for row in self.tables.rows.values():
            self.repairs[f"{row.kind} {row.status}"] += 1
            self.repairs["voided by okane"] += row.idempotency_key is None

    def _check_money(self, row: PaymentRow, captured: Sequence[Charge]) -> None:
        """Leave what was held to the invariants of operations: the amount and the name of what was captured may differ."""
        if str(row.id) in self.bank.authorized() and row.status in (Status.SUCCESS, Status.CANCELED):
            if (row.status is Status.SUCCESS) != bool(captured):
                self.report(f"I3: {row.id} is {row.status}, and the provider captured {captured}")
            return
        super()._check_money(row, captured)

    def _check_outcomes(self) -> None:
        """Check that an answer to the attempt said what was written."""
        said: dict[str, type[object]] = {"success": Approved, "declined": Declined, "pending": Pending}
        for row in self.tables.rows.values():
            for line in self.tables.events[row.id]:
                wanted = said.get(line.event)
                answers = self._operation_answers[row.id, line.attempt]
                if wanted is not None and line.reason is None and not any(isinstance(one, wanted) for one in answers):
                    self.report(
                        f"{row.id} is {line.event} under attempt {line.attempt}, and no answer said so: {answers}"
                    )

    def _operations_left(self, server: Server) -> list[str]:
        left = []
        for key in self._operation_lanes:
            stream = server.keys.get(key)
            if isinstance(stream, Entries) and (stream.entries or any(one.pending for one in stream.groups.values())):
                left.append(f"entries are left in {key.decode()}")
        if server.keys.get(self._operation_delayed):
            left.append("operations are left in the delayed set")
        return left

    def _history(self, charges: Iterable[Charge]) -> History:
        """Return the journals of the run as those of torture."""
        held = self.bank.authorized()
        database = self.tables.db
        return History(
            rows={str(row.id): _payment(row) for row in database.payments.values()},
            events={
                str(payment_id): [
                    history.EventRow(
                        version=one.version,
                        at_s=one.at.timestamp(),
                        event=one.event,
                        status=one.status,
                        attempt=one.attempt,
                        actor=one.actor,
                        operation_id=None if one.operation_id is None else str(one.operation_id),
                    )
                    for one in lines
                ]
                for payment_id, lines in database.events.items()
            },
            charges=[
                JournalCharge(
                    payment_id=one.payment_id,
                    key=one.key,
                    amount_minor=one.amount_minor,
                    currency=one.currency,
                    captured=one.captured,
                    at_s=0.0,
                    held=one.payment_id in held,
                )
                for one in charges
            ],
            operations=OperationHistory(
                requests=self.requests,
                moves=[_move(one) for one in self.bank.moves.values()],
                rows={str(row.id): _operation(row.operation()) for row in self.tables.rows.values()},
                events={
                    str(operation_id): [
                        history.OperationEventRow(
                            version=one.version,
                            at_s=one.at.timestamp(),
                            event=one.event,
                            status=one.status,
                            attempt=one.attempt,
                            actor=one.actor,
                        )
                        for one in lines
                    ]
                    for operation_id, lines in self.tables.events.items()
                },
            ),
        )


def _payment(row: PaymentRow) -> history.PaymentRow:
    return history.PaymentRow(
        id=str(row.id),
        account_id=row.account_id,
        key=row.idempotency_key,
        amount_minor=row.amount_minor,
        currency=row.currency,
        status=row.status,
        version=row.version,
        attempts=row.attempts,
        provider_key=row.provider_key,
        created_at_s=row.created_at.timestamp(),
        reason=row.last_error,
        retries=row.retries,
        amount_captured=row.amount_captured,
        amount_refunded=row.amount_refunded,
        refund_reserved=row.refund_reserved,
        open_operation=None if row.open_operation is None else str(row.open_operation),
    )


def _operation(operation: Operation) -> history.OperationRow:
    return history.OperationRow(
        id=str(operation.id),
        payment_id=str(operation.payment_id),
        account_id=operation.account_id,
        kind=operation.kind,
        key=operation.idempotency_key,
        amount_minor=operation.amount_minor,
        currency=operation.currency,
        status=operation.status,
        version=operation.version,
        attempts=operation.attempts,
        provider=operation.provider,
        provider_key=operation.provider_key,
        reason=operation.last_error,
    )


def _move(move: BookedMove) -> Move:
    return Move(
        made_by=str(move.made_by),
        payment_id=str(move.payment_id),
        kind=move.kind,
        amount_minor=move.amount_minor,
        currency=move.currency,
        moved=move.status == "succeeded",
        at_s=move.at_s,
    )
