"""The outcome table: which status a provider's answer leads to. Pure functions.

What may have moved money is `unknown` and looked up, never charged blindly, never failed by a timer. What the provider has
not decided yet is `requires_action` or `submitted`, and looked up, too. What it holds for a capture is `authorized`. What
moved no money is retried with backoff until its retries are spent; only the provider's own faults use them up. A refusal by
the provider is final.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import assert_never

from okane.payment import NextAction, Status
from okane.providers.base import (
    Approved,
    Authorized,
    ChargeResult,
    Declined,
    LookUpResult,
    NotFound,
    Pending,
    Traits,
    Unavailable,
    Unknown,
)
from okane.store.records import Claim
from streams import RetryPolicy
from streams.values import value

SPENT = "spent"
FELL_BACK = "fell_back"  # declined softly and closed at its provider: the next candidate of its route may charge
MAX_RELEASES = 5  # look-ups after which a soft decline that cannot be closed is final
DEFERRED = "deferred"  # nothing happened, and it was not the provider's fault: no retry is used up

# Before the next attempt where the provider names no time: its rate limit, or an API key that it refuses.
LIMIT_DELAY = timedelta(seconds=1)
CONFIG_DELAY = timedelta(seconds=30)


@value
class PaymentOutcome:
    """The outcome of one attempt: its status, its event in the history, and the delay until the next look (None: never)."""

    status: Status
    event: str
    provider_ref: str | None = None
    decline_code: str | None = None
    reason: str | None = None
    delay: timedelta | None = None
    attempt_ref: str | None = None
    next_action: NextAction | None = None
    capture_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class OutcomeRules:
    """The settings of the table. The provider's `Traits` have those that differ between providers.

    `policy` spaces and bounds the retries; `max_deliveries` is how often a stream entry may be delivered before it counts as
    poison. An open outcome is looked up after each of `look_up_delays` in turn: soon at first, since most answers are only
    late, then rarely, since look-ups do not help a provider that is down.
    """

    policy: RetryPolicy
    max_deliveries: int
    look_up_delays: Sequence[timedelta]

    def hopeless(self, claim: Claim) -> PaymentOutcome | None:
        """Return `needs_review` for a payment whose attempts, look-ups included, end in crashes only.

        Spent retries alone are not hopeless: the next look-up ends them. The bound is at least `max_deliveries`, since a
        payment that is in hand beside a poison entry sees its worker die as often as that entry is delivered.
        """
        tries = self.policy.max_attempts
        if tries is None or claim.payment.retries <= max(tries, self.max_deliveries):
            return None
        return PaymentOutcome(
            Status.NEEDS_REVIEW, "needs_review", reason="poison: its workers died or stalled again and again"
        )

    def charged(self, claim: Claim, result: ChargeResult, traits: Traits, *, roll: float) -> PaymentOutcome:
        """Return the outcome of a charge. `roll` in [0, 1) is the dice of the backoff's jitter."""
        match result:
            case Approved():  # most are
                return _approved(result)
            case Unavailable(fault="provider", reason=reason, retry_after=retry_after):
                planned = self.policy.delay(claim.payment.retries + 1, roll=roll)
                if planned is None:
                    return _spent(reason)
                delay = planned if retry_after is None else retry_after
                return PaymentOutcome(Status.FAILED_RETRYABLE, "unavailable", reason=reason, delay=delay)
            case Unavailable(fault=fault, reason=reason, retry_after=retry_after):
                usual = LIMIT_DELAY if fault == "limit" else CONFIG_DELAY
                return self.deferred(reason, usual * (1 + roll) if retry_after is None else retry_after)
            case Unknown(reason=reason, at_once=at_once):
                return self._open(claim, reason, traits, at_once=at_once)
            case _:
                return self._decided(claim, result, traits)

    def looked_up(self, claim: Claim, result: LookUpResult, traits: Traits) -> PaymentOutcome | None:
        """Return the outcome of a look-up; None if the provider never got the charge, which may be made now under the same
        key."""
        match result:
            case NotFound():
                if claim.pending_s is not None or claim.since_call_s < traits.consistency_lag.total_seconds():
                    return self._open(claim, "not found yet", traits)
                tried = claim.payment.retries
                if tried > 0 and self.policy.delay(tried, roll=0) is None:
                    return _spent("the provider never got it, and every try is used up")
                if claim.expired:  # no money moved, and none may: the next claim is refused, and ends it
                    return PaymentOutcome(Status.FAILED_RETRYABLE, "unavailable", reason="expired", delay=timedelta(0))
                if not claim.may_charge:
                    return self.deferred(f"{claim.payment.provider} is drained", CONFIG_DELAY)
                return None
            case Unavailable(reason=reason):
                return self._open(claim, f"look-up: {reason}", traits)
            case Unknown(reason=reason, at_once=at_once):
                return self._open(claim, f"look-up: {reason}", traits, at_once=at_once)
            case _:
                return self._decided(claim, result, traits)

    def may_fall_back(self, claim: Claim, result: LookUpResult) -> bool:
        """Return True for a soft decline of a payment whose route has another candidate for it."""
        payment = claim.payment
        return (
            payment.soft_fallback is True
            and isinstance(result, Declined)
            and result.soft
            and not claim.expired
            and any(name != payment.provider for name in payment.candidates or ())
        )

    def released(self, claim: Claim, declined: Declined, result: LookUpResult, traits: Traits) -> PaymentOutcome:
        """Return the outcome of a soft decline, by the result of closing it at its provider.

        Until it is closed the payment stays with its provider, and is looked up. A decline that cannot be closed is final.
        """
        match result:
            case Declined():
                reason = f"{declined.code} at {claim.payment.provider}: the next candidate is tried"
                return PaymentOutcome(
                    Status.FAILED_RETRYABLE, FELL_BACK, decline_code=declined.code, reason=reason, delay=timedelta(0)
                )
            case Unavailable(reason=reason) | Unknown(reason=reason, at_once=False) if claim.look_ups < MAX_RELEASES:
                open_outcome = self._open(claim, f"declined, and not closed yet: {reason}", traits)
                return replace(open_outcome, attempt_ref=declined.provider_ref)
            case NotFound() | Unavailable() | Unknown():
                return self._decided(claim, declined, traits)
            case _:
                return self._decided(claim, result, traits)

    def stopped(self, claim: Claim, call: str, traits: Traits) -> PaymentOutcome:
        """Return the outcome of a call that was broken off by a stop of the worker: open, and no crash."""
        reason = f"its worker was stopped during the {call.replace('_', '-')}"
        if claim.pending_s is not None:
            return self._awaiting(claim, traits, next_action=claim.payment.next_action, reason=reason)
        return PaymentOutcome(Status.UNKNOWN, "unknown", reason=reason, delay=self.look_up_delays[0])

    def deferred(self, reason: str, delay: timedelta) -> PaymentOutcome:
        """Return the outcome of an attempt that was not made, without fault of the provider."""
        return PaymentOutcome(Status.FAILED_RETRYABLE, DEFERRED, reason=reason, delay=delay)

    def _decided(
        self, claim: Claim, result: Approved | Authorized | Declined | Pending, traits: Traits
    ) -> PaymentOutcome:
        """Return the outcome of an answer that tells what the provider has done with the charge."""
        match result:
            case Approved():
                return _approved(result)
            case Authorized(provider_ref=provider_ref, capture_before=capture_before):
                return PaymentOutcome(
                    Status.AUTHORIZED, "authorized", attempt_ref=provider_ref, capture_before=capture_before
                )
            case Declined(code=code, message=message, provider_ref=provider_ref):
                reason = f"{code}: {message}" if message else code
                return PaymentOutcome(
                    Status.FAILED_FINAL, "declined", decline_code=code, reason=reason, attempt_ref=provider_ref
                )
            case Pending(provider_ref=provider_ref, next_action=next_action):
                return self._awaiting(claim, traits, next_action=next_action, attempt_ref=provider_ref)
            case _:
                assert_never(result)

    def _open(self, claim: Claim, reason: str, traits: Traits, *, at_once: bool = False) -> PaymentOutcome:
        if at_once:
            return PaymentOutcome(Status.NEEDS_REVIEW, "needs_review", reason=reason)
        if claim.pending_s is not None:
            return self._awaiting(claim, traits, next_action=claim.payment.next_action, reason=reason)
        if claim.open_s >= traits.unknown_deadline.total_seconds():
            return PaymentOutcome(Status.NEEDS_REVIEW, "needs_review", reason=f"outcome open for too long: {reason}")
        delay = self.look_up_delays[min(claim.look_ups, len(self.look_up_delays) - 1)]
        return PaymentOutcome(Status.UNKNOWN, "unknown", reason=reason, delay=delay)

    def _awaiting(
        self,
        claim: Claim,
        traits: Traits,
        *,
        next_action: NextAction | None,
        attempt_ref: str | None = None,
        reason: str | None = None,
    ) -> PaymentOutcome:
        """Return the outcome of a payment that the provider has, and decides later. It is polled: a notice may be lost."""
        if claim.pending_s is not None and claim.pending_s >= traits.pending_deadline.total_seconds():
            return PaymentOutcome(
                Status.NEEDS_REVIEW,
                "needs_review",
                reason="pending at the provider for too long" + (f": {reason}" if reason else ""),
                attempt_ref=attempt_ref,
            )
        polls = claim.look_ups if claim.pending_s is not None else 0
        return PaymentOutcome(
            Status.SUBMITTED if next_action is None else Status.REQUIRES_ACTION,
            "pending",
            reason=reason,
            delay=traits.poll_delays[min(polls, len(traits.poll_delays) - 1)],
            attempt_ref=attempt_ref,
            next_action=next_action,
        )


def _approved(result: Approved) -> PaymentOutcome:
    return PaymentOutcome(Status.SUCCESS, "success", provider_ref=result.provider_ref)


def _spent(reason: str) -> PaymentOutcome:
    return PaymentOutcome(Status.FAILED_FINAL, SPENT, reason=reason)
