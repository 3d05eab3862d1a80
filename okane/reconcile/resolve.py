"""The consequence of a comparison: payments that only their provider can decide are decided by what it has.

`unknown`: the payment is made due, and a worker looks it up, as after a notice. `needs_review`: it is looked up here, and a
charge or a refusal is written as an operator's decision, under the version that was looked up. Anything else stays for a
human. A process that dies has made some decisions, each of them whole; a repeat makes the others.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, datetime
from typing import Literal
from uuid import UUID

from okane.errors import PaymentNotFound, StatusConflict, VersionConflict
from okane.intake.accept import PaymentIntake
from okane.intake.dead_letter_replay import DeadLetterReplay
from okane.intake.decision_texts import find_fault
from okane.intake.provider_notices import NoticeIntake
from okane.payment import MAX_REASON, Payment, Status
from okane.providers.base import Approved, Declined, Notice
from okane.reconcile.look_up import LookUps
from okane.store import OPERATOR, Decision, ReviewStore
from okane.store.movements import MovementStore
from streams.values import value

# `woken`: a worker looks it up. `kept`: a human has to decide.
Step = Literal["resolved", "woken", "kept"]


@value
class Resolution:
    """The step that was taken for one payment, or would be. `status` is the one that it gets; of `woken` and `kept`, has."""

    payment_id: UUID
    step: Step
    was: Status
    status: Status
    why: str


class Resolver:
    """Decides payments of one provider by look-ups."""

    def __init__(
        self,
        *,
        provider: str,
        day: date,
        movements: MovementStore,
        look_ups: LookUps,
        reviews: ReviewStore,
        intake: PaymentIntake,
        notices: NoticeIntake,
        replay: DeadLetterReplay,
    ) -> None:
        self._provider = provider
        self._day = day
        self._movements = movements
        self._look_ups = look_ups
        self._reviews = reviews
        self._intake = intake
        self._notices = notices
        self._replay = replay

    async def run(self, begin: datetime, end: datetime, *, more: Collection[UUID], dry_run: bool) -> list[Resolution]:
        """Decide the undecided payments that were accepted in this time, and those among `more`. Raises StoreUnavailable."""
        found = {payment_id for payment_id, _ in await self._movements.undecided(begin, end, provider=self._provider)}
        now = await self._movements.now()
        done = []
        for payment_id in sorted(found | set(more)):
            try:
                payment = await self._reviews.find(payment_id)
            except PaymentNotFound:
                continue
            if payment.provider == self._provider and payment.status in (Status.UNKNOWN, Status.NEEDS_REVIEW):
                done.append(await self._resolve(payment, now, dry_run=dry_run))
        return done

    async def _resolve(self, payment: Payment, now: datetime, *, dry_run: bool) -> Resolution:
        if payment.status is Status.UNKNOWN:
            if not dry_run:
                await self._notices.take(self._provider, [_notice(payment.id, now)])
            return Resolution(payment.id, "woken", payment.status, payment.status, "a worker looks it up")
        answer = await self._look_ups.payment(payment)
        decision: Decision
        if isinstance(answer, Approved):
            if payment.provider_ref not in (None, answer.provider_ref):
                why = f"{self._provider} has {answer.provider_ref}, and the payment {payment.provider_ref}"
                return Resolution(payment.id, "kept", payment.status, payment.status, why)
            decision, ref, text = Status.SUCCESS, answer.provider_ref, f"has charged {answer.provider_ref}"
        elif isinstance(answer, Declined) and payment.provider_ref is None:
            decision, ref, text = Status.FAILED_FINAL, None, f"has declined it: {answer.code}"
        else:
            why = f"{self._provider} decides nothing: {type(answer).__name__}"
            return Resolution(payment.id, "kept", payment.status, payment.status, why)
        why = f"reconcile of {self._day}: {self._provider} {text}"[:MAX_REASON]
        if find_fault(why, ref, decision) is not None:
            why = f"reconcile of {self._day}: {self._provider} has decided it"
            ref = None
        return await self._decide(payment, decision, ref, why, dry_run=dry_run)

    async def _decide(
        self, payment: Payment, decision: Decision, ref: str | None, why: str, *, dry_run: bool
    ) -> Resolution:
        """Write the decision, unless the payment has changed since it was read."""
        if not dry_run:
            try:
                await self._intake.resolve(
                    payment.id,
                    account_id=None,
                    decision=decision,
                    reason=why,
                    provider_ref=ref,
                    actor=OPERATOR,
                    version=payment.version,
                )
            except (StatusConflict, VersionConflict):
                return Resolution(payment.id, "kept", payment.status, payment.status, "it has changed meanwhile")
            await self._replay.remove_notes([payment.id])
        return Resolution(payment.id, "resolved", payment.status, decision, why)


def _notice(payment_id: UUID, now: datetime) -> Notice:
    """Return the hint that makes a payment due. Each run has its own: a repeated hint wakes nothing."""
    event_id = f"reconcile_{payment_id}_{now.timestamp():.6f}"
    return Notice(event_id, "reconcile", payment_id, None)
