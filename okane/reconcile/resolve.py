"""The consequence of a comparison: what only the provider can decide is decided by what it has.

`needs_review`: the payment or operation is looked up here, and a success or a refusal is written as an operator's decision,
under the version that was looked up. Any other that the provider's list shows at another end is made due, and a worker looks
it up, as after a notice: the notice that should have told us may be lost. The rest stays for a human. A process that dies has
made some decisions, each of them whole; a repeat makes the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from datetime import date, datetime
from typing import Literal
from uuid import UUID

from okane.errors import OperationNotFound, PaymentNotFound, StatusConflict, VersionConflict
from okane.intake.accept import PaymentIntake
from okane.intake.dead_letter_replay import DeadLetterReplay
from okane.intake.decision_texts import find_fault
from okane.intake.provider_notices import NoticeIntake
from okane.operation import Operation, OperationKind, OperationStatus
from okane.payment import MAX_REASON, Payment, Status
from okane.providers.base import Approved, Declined, LookUpResult, Notice, OperationLookUp
from okane.reconcile.day import DayComparison, DayResult
from okane.reconcile.look_up import LookUps, is_unanswered
from okane.store import OPERATOR, ReviewStore
from okane.store.movements import MovementStore
from okane.store.operations import OperationStore
from streams.values import value

# `woken`: a worker looks it up. `kept`: a human has to decide.
Step = Literal["resolved", "woken", "kept"]
WAIT_S, WAIT_STEP_S = 20.0, 0.5
MAX_UNANSWERED = 3  # each was tried for ten seconds; the rest is kept without a call
# What a notice makes due: the open ones, and those that were closed without a charge, which a late look-up may find.
_OPEN = frozenset({"unknown", "submitted", "requires_action"})
_CLOSED = frozenset({"failed_final", "canceled"})


@value
class Resolution:
    """The step that was taken for one payment or operation, or would be. `status` is the one that it gets; of `woken` and
    `kept`, has."""

    payment_id: UUID
    operation_id: UUID | None
    step: Step
    was: str
    status: str
    why: str

    @property
    def subject(self) -> UUID:
        """The operation, or the payment if it is about no operation."""
        return self.operation_id or self.payment_id


@value
class _Case:
    """An undecided payment or operation. `decide` writes a decision: success, reason, name at the provider."""

    payment_id: UUID
    operation_id: UUID | None
    status: str
    provider_ref: str | None
    may_be_over: bool  # a refund that succeeded may have come back, and an authorization may have ended, there
    look_up: Callable[[], Awaitable[LookUpResult | OperationLookUp]]
    decide: Callable[[bool, str, str | None], Awaitable[object]]

    @property
    def is_woken(self) -> bool:
        """True if a notice makes it due for a look-up by a worker."""
        is_closed = self.status in _CLOSED and (self.operation_id is not None or self.provider_ref is None)
        return self.status in _OPEN or is_closed or self.may_be_over

    def done(self, step: Step, why: str, status: str | None = None) -> Resolution:
        return Resolution(self.payment_id, self.operation_id, step, self.status, status or self.status, why)


class Resolver:
    """Decides payments and operations of one provider by look-ups."""

    def __init__(
        self,
        *,
        provider: str,
        day: date,
        movements: MovementStore,
        look_ups: LookUps,
        reviews: ReviewStore,
        operations: OperationStore,
        intake: PaymentIntake,
        notices: NoticeIntake,
        replay: DeadLetterReplay,
    ) -> None:
        self._provider = provider
        self._day = day
        self._movements = movements
        self._look_ups = look_ups
        self._reviews = reviews
        self._operations = operations
        self._intake = intake
        self._notices = notices
        self._replay = replay
        self._unanswered = 0

    async def run(
        self,
        begin: datetime,
        end: datetime,
        *,
        payments: Collection[UUID] = (),
        operations: Collection[UUID] = (),
        dry_run: bool,
    ) -> list[Resolution]:
        """Decide what is undecided of the payments and operations made in this time, and of these, which differ in status
        from the list. Raises StoreUnavailable."""
        now = await self._movements.now()
        found = await self._movements.undecided(begin, end, provider=self._provider)
        done = [await self._of_payment(one, now, dry_run=dry_run) for one in sorted({*found, *payments})]
        found = await self._movements.undecided_operations(begin, end, provider=self._provider)
        done += [await self._of_operation(one, now, dry_run=dry_run) for one in sorted({*found, *operations})]
        return [one for one in done if one is not None]

    async def _of_payment(self, payment_id: UUID, now: datetime, *, dry_run: bool) -> Resolution | None:
        try:
            payment = await self._reviews.find(payment_id)
        except PaymentNotFound:
            return None
        if payment.called_provider != self._provider:
            return None

        async def decide(success: bool, why: str, ref: str | None) -> None:
            await self._intake.resolve(
                payment.id,
                account_id=None,
                decision=Status.SUCCESS if success else Status.FAILED_FINAL,
                reason=why,
                provider_ref=ref,
                actor=OPERATOR,
                version=payment.version,
            )
            await self._replay.remove_notes([payment.id])

        case = _Case(
            payment.id,
            None,
            payment.status.value,
            payment.provider_ref,
            may_be_over=payment.status is Status.AUTHORIZED,
            look_up=lambda: self._look_ups.payment(payment),
            decide=decide,
        )
        return await self._settle(case, now, dry_run=dry_run)

    async def _of_operation(self, operation_id: UUID, now: datetime, *, dry_run: bool) -> Resolution | None:
        try:
            operation = await self._operations.get(operation_id)
        except OperationNotFound:
            return None
        if operation.provider != self._provider:
            return None
        payment = await self._reviews.find(operation.payment_id)

        async def decide(success: bool, why: str, ref: str | None) -> None:
            await self._operations.resolve(
                operation.id,
                account_id=None,
                decision=OperationStatus.SUCCESS if success else OperationStatus.FAILED_FINAL,
                reason=why,
                provider_ref=ref,
                actor=OPERATOR,
                version=operation.version,
            )

        return await self._settle(_operation_case(operation, payment, self._look_ups, decide), now, dry_run=dry_run)

    async def _settle(self, case: _Case, now: datetime, *, dry_run: bool) -> Resolution | None:
        """Wake what a notice would wake, and decide what needs a review. None: neither."""
        if case.is_woken:
            if not dry_run:
                await self._notices.take(self._provider, [_notice(case, now)])
            return case.done("woken", "a worker looks it up")
        if case.status != Status.NEEDS_REVIEW:
            return None
        if self._unanswered >= MAX_UNANSWERED:
            return case.done("kept", f"{self._provider} does not answer")
        answer = await case.look_up()
        self._unanswered = self._unanswered + 1 if is_unanswered(answer) else 0
        if isinstance(answer, Approved):
            if case.provider_ref not in (None, answer.provider_ref):
                return case.done("kept", f"{self._provider} has {answer.provider_ref}, and here is {case.provider_ref}")
            success, ref, text = True, answer.provider_ref, f"has executed it as {answer.provider_ref}"
        elif isinstance(answer, Declined) and case.provider_ref is None:
            success, ref, text = False, None, f"has declined it: {answer.code}"
        else:
            return case.done("kept", f"{self._provider} decides nothing: {type(answer).__name__}")
        status = Status.SUCCESS if success else Status.FAILED_FINAL
        why = f"reconcile of {self._day}: {self._provider} {text}"[:MAX_REASON]
        if find_fault(why, ref, status) is not None:  # a name that no column should hold
            why, ref = f"reconcile of {self._day}: {self._provider} has decided it", None
        if not dry_run:
            try:
                await case.decide(success, why, ref)
            except (StatusConflict, VersionConflict):
                return case.done("kept", "it has changed meanwhile")
        return case.done("resolved", why, status.value)


async def wait_until_settled(
    comparison: DayComparison, result: DayResult, resolutions: Collection[Resolution]
) -> Collection[int]:
    """Return the places of the differences that have gone, whether by these steps, by another run or by a worker. Waits for
    the look-ups of those that were woken, `WAIT_S` at most: a difference that workers are about to end would ring an alert
    until the next run. Raises StoreUnavailable."""
    woken = {one.subject for one in resolutions if one.step == "woken"}
    deadline_s = time.monotonic() + WAIT_S
    while True:
        settled = await comparison.find_settled(result)
        open_ = {
            one.operation_id or one.payment_id
            for place, one in enumerate(result.differences)
            if one.kind == "status" and place not in settled
        }
        if not open_ & woken or time.monotonic() >= deadline_s:
            return settled
        await asyncio.sleep(WAIT_STEP_S)


def _operation_case(
    operation: Operation,
    payment: Payment,
    look_ups: LookUps,
    decide: Callable[[bool, str, str | None], Awaitable[object]],
) -> _Case:
    return _Case(
        payment.id,
        operation.id,
        operation.status.value,
        operation.provider_ref,
        may_be_over=operation.kind is OperationKind.REFUND and operation.status is OperationStatus.SUCCESS,
        look_up=lambda: look_ups.operation(operation, payment),
        decide=decide,
    )


def _notice(case: _Case, now: datetime) -> Notice:
    """Return the hint that makes it due. Each run has its own: a repeated hint wakes nothing."""
    event_id = f"reconcile_{case.operation_id or case.payment_id}_{now.timestamp():.6f}"
    return Notice(
        event_id,
        "reconcile",
        case.payment_id,
        None,
        is_refusal=case.may_be_over,
        operation_id=case.operation_id,
    )
