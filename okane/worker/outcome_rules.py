"""The outcome table: which status a provider's answer leads to. Pure functions.

Three rules: what may have moved money is `unknown` and looked up, never charged blindly, never failed by a timer. What moved
none is retried with backoff until its retries are spent. A refusal by the provider is final.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import assert_never

from okane.payment import Status
from okane.providers.base import Approved, ChargeResult, Declined, LookUpResult, NotFound, Unavailable, Unknown
from okane.store.records import Claim
from streams import RetryPolicy
from streams.values import value

SPENT = "spent"


@value
class PaymentOutcome:
    """The outcome of one attempt: its status, its event in the history, and the delay until the next look (None: never)."""

    status: Status
    event: str
    provider_ref: str | None = None
    decline_code: str | None = None
    reason: str | None = None
    delay: timedelta | None = None


@dataclass(frozen=True, slots=True)
class OutcomeRules:
    """The settings of the table.

    `policy` spaces and bounds the retries; `max_deliveries` is how often a stream entry may be delivered before it counts as
    poison; for `consistency_lag` a provider's `not found` proves nothing. An open outcome is looked up after each of
    `look_up_delays` in turn: soon at first, since most answers are only late, then rarely, since look-ups do not help a
    provider that is down. After `unknown_deadline` it needs a review.
    """

    policy: RetryPolicy
    max_deliveries: int
    consistency_lag: timedelta
    unknown_deadline: timedelta
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

    def charged(self, claim: Claim, result: ChargeResult, *, roll: float) -> PaymentOutcome:
        """Return the outcome of a charge. `roll` in [0, 1) is the dice of the backoff's jitter."""
        match result:
            case Approved(provider_ref=provider_ref):
                return PaymentOutcome(Status.SUCCESS, "success", provider_ref=provider_ref)
            case Declined():
                return _declined(result)
            case Unavailable(reason=reason, retry_after=retry_after):
                planned = self.policy.delay(claim.payment.retries + 1, roll=roll)
                if planned is None:
                    return _spent(reason)
                delay = planned if retry_after is None else retry_after
                return PaymentOutcome(Status.FAILED_RETRYABLE, "unavailable", reason=reason, delay=delay)
            case Unknown(reason=reason):
                return self._open(claim, reason)
            case _:
                assert_never(result)

    def looked_up(self, claim: Claim, result: LookUpResult) -> PaymentOutcome | None:
        """Return the outcome of a look-up; None if the provider never got the charge, which may be made now under the same
        key."""
        match result:
            case Approved(provider_ref=provider_ref):
                return PaymentOutcome(Status.SUCCESS, "success", provider_ref=provider_ref)
            case Declined():
                return _declined(result)
            case NotFound():
                if claim.since_call_s < self.consistency_lag.total_seconds():
                    return self._open(claim, "not found yet")
                tried = claim.payment.retries
                if tried > 0 and self.policy.delay(tried, roll=0) is None:
                    return _spent("the provider never got it, and every try is used up")
                if claim.expired:  # no money moved, and none may: the next claim is refused, and ends it
                    return PaymentOutcome(Status.FAILED_RETRYABLE, "unavailable", reason="expired", delay=timedelta(0))
                return None
            case Unavailable(reason=reason) | Unknown(reason=reason):
                return self._open(claim, f"look-up: {reason}")
            case _:
                assert_never(result)

    def stopped(self, call: str) -> PaymentOutcome:
        """Return the outcome of a call that was broken off by a stop of the worker: open, and no crash."""
        reason = f"its worker was stopped during the {call.replace('_', '-')}"
        return PaymentOutcome(Status.UNKNOWN, "unknown", reason=reason, delay=self.look_up_delays[0])

    def _open(self, claim: Claim, reason: str) -> PaymentOutcome:
        if claim.open_s >= self.unknown_deadline.total_seconds():
            return PaymentOutcome(Status.NEEDS_REVIEW, "needs_review", reason=f"outcome open for too long: {reason}")
        delay = self.look_up_delays[min(claim.look_ups, len(self.look_up_delays) - 1)]
        return PaymentOutcome(Status.UNKNOWN, "unknown", reason=reason, delay=delay)


def _declined(result: Declined) -> PaymentOutcome:
    reason = f"{result.code}: {result.message}" if result.message else result.code
    return PaymentOutcome(Status.FAILED_FINAL, "declined", decline_code=result.code, reason=reason)


def _spent(reason: str) -> PaymentOutcome:
    return PaymentOutcome(Status.FAILED_FINAL, SPENT, reason=reason)
