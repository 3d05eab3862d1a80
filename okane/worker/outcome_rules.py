"""What a provider's answer means for a payment: the outcome table of the money, as pure functions.

Three rules decide everything here. What may have moved money is `unknown` and looked up, never charged blindly and never
failed by a timer. What surely moved none is retried with back-off until its retries are spent. What the provider refused
for good is final.
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
    """The status an attempt leads to, the word for the timeline, and when to look again (None: never)."""

    status: Status
    event: str
    provider_ref: str | None = None
    decline_code: str | None = None
    reason: str | None = None
    delay: timedelta | None = None


@dataclass(frozen=True, slots=True)
class OutcomeRules:
    """The settings of the table.

    `policy` spaces and bounds the retries; `max_deliveries` is how often a stream entry may come again before it counts
    as poison; `consistency_lag` is how long a provider's `not found` proves nothing. An open outcome is looked up after
    each of `look_up_delays` in turn: soon at first, since most answers are only late, then patiently, since a provider
    that is down for an hour is not helped by questions. After `unknown_deadline` it goes to a human.
    """

    policy: RetryPolicy
    max_deliveries: int
    consistency_lag: timedelta
    unknown_deadline: timedelta
    look_up_delays: Sequence[timedelta]

    def hopeless(self, claim: Claim) -> PaymentOutcome | None:
        """Before anything is called: a payment whose attempts end in crashes only, look-ups included, is for a human.

        What is merely spent ends after its look-up; more crashes than tries means that even asking does not end well. A
        payment that was only in hand beside a poison entry sees its worker die as often as that entry is delivered.
        """
        tries = self.policy.max_attempts
        if tries is None or claim.payment.retries <= max(tries, self.max_deliveries):
            return None
        return PaymentOutcome(
            Status.NEEDS_REVIEW, "needs_review", reason="poison: its workers died or stalled again and again"
        )

    def charged(self, claim: Claim, result: ChargeResult, *, roll: float) -> PaymentOutcome:
        """After a charge. `roll` in [0, 1) is the jitter's dice."""
        match result:
            case Approved() | Declined():
                return _closed(result)
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
        """After a look-up. None: the provider surely never got the charge, so it may be made now, under the same key."""
        match result:
            case Approved() | Declined():
                return _closed(result)
            case NotFound():
                if claim.since_call_s < self.consistency_lag.total_seconds():
                    return self._open(claim, "not found yet")
                tried = claim.payment.retries
                if tried > 0 and self.policy.delay(tried, roll=0) is None:
                    return _spent("the provider never got it, and every try is used up")
                if claim.expired:  # nothing moved, and nothing may: the next claim is refused, and ends it
                    return PaymentOutcome(Status.FAILED_RETRYABLE, "unavailable", reason="expired", delay=timedelta(0))
                return None
            case Unavailable(reason=reason) | Unknown(reason=reason):
                return self._open(claim, f"look-up: {reason}")
            case _:
                assert_never(result)

    def stopped(self, call: str) -> PaymentOutcome:
        """After a call that was broken off because its worker is stopped: looked up by the next one, and no crash."""
        reason = f"its worker was stopped during the {call.replace('_', '-')}"
        return PaymentOutcome(Status.UNKNOWN, "unknown", reason=reason, delay=self.look_up_delays[0])

    def _open(self, claim: Claim, reason: str) -> PaymentOutcome:
        if claim.open_s >= self.unknown_deadline.total_seconds():
            return PaymentOutcome(Status.NEEDS_REVIEW, "needs_review", reason=f"outcome open for too long: {reason}")
        delay = self.look_up_delays[min(claim.look_ups, len(self.look_up_delays) - 1)]
        return PaymentOutcome(Status.UNKNOWN, "unknown", reason=reason, delay=delay)


def _closed(result: Approved | Declined) -> PaymentOutcome:
    match result:
        case Approved(provider_ref=provider_ref):
            return PaymentOutcome(Status.SUCCESS, "success", provider_ref=provider_ref)
        case Declined(code=code, message=message):
            reason = f"{code}: {message}" if message else code
            return PaymentOutcome(Status.FAILED_FINAL, "declined", decline_code=code, reason=reason)
        case _:
            assert_never(result)


def _spent(reason: str) -> PaymentOutcome:
    return PaymentOutcome(Status.FAILED_FINAL, SPENT, reason=reason)
