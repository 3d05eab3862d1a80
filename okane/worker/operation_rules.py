"""The outcome table of captures, voids and refunds: that of payments (`outcome_rules`), in an operation's words. Pure."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

from okane.operation import OperationStatus
from okane.payment import Status
from okane.providers.base import OperationLookUp, OperationResult, Traits
from okane.store.operation_records import OperationClaim
from okane.store.records import Claim
from okane.worker.outcome_rules import OutcomeRules, PaymentOutcome
from streams.values import value

# A customer has no part in an operation.
_STATUS = {Status.REQUIRES_ACTION: OperationStatus.SUBMITTED}


@value
class OperationOutcome:
    """The outcome of one attempt: its status, its event in the history, and the delay until the next look (None: never)."""

    status: OperationStatus
    event: str
    provider_ref: str | None = None
    decline_code: str | None = None
    reason: str | None = None
    delay: timedelta | None = None


class OperationRules:
    """The table, with the settings of the payments' one."""

    def __init__(self, rules: OutcomeRules) -> None:
        self.look_up_delays = rules.look_up_delays
        self._rules = rules

    def hopeless(self, claim: OperationClaim) -> OperationOutcome | None:
        """Return `needs_review` for an operation whose attempts, look-ups included, end in crashes only."""
        decided = self._rules.hopeless(_as_payment(claim))
        return None if decided is None else _of_operation(decided)

    def operated(
        self, claim: OperationClaim, result: OperationResult, traits: Traits, *, roll: float
    ) -> OperationOutcome:
        """Return the outcome of a call that executes the operation. `roll` in [0, 1) is the dice of the backoff's jitter."""
        return _of_operation(self._rules.charged(_as_payment(claim), result, traits, roll=roll))

    def looked_up(self, claim: OperationClaim, result: OperationLookUp, traits: Traits) -> OperationOutcome | None:
        """Return the outcome of a look-up; None if the provider never got the operation, which may be executed now under the
        same key."""
        decided = self._rules.looked_up(_as_payment(claim), result, traits)
        return None if decided is None else _of_operation(decided)

    def stopped(self, claim: OperationClaim, call: str, traits: Traits) -> OperationOutcome:
        """Return the outcome of a call that was broken off by a stop of the worker: open, and no crash."""
        return _of_operation(self._rules.stopped(_as_payment(claim), call, traits))

    def deferred(self, reason: str, delay: timedelta) -> OperationOutcome:
        """Return the outcome of an attempt that was not made, without fault of the provider."""
        return _of_operation(self._rules.deferred(reason, delay))


def _as_payment(claim: OperationClaim) -> Claim:
    """Return what the table of payments reads of a claim."""
    return Claim(
        payment=dataclasses.replace(claim.payment, retries=claim.operation.retries, next_action=None),
        look_up_first=claim.look_up_first,
        look_ups=claim.look_ups,
        since_call_s=claim.since_call_s,
        open_s=claim.open_s,
        valid_until_s=claim.valid_until_s,
        pending_s=claim.pending_s,
        key_age_s=claim.key_age_s,
    )


def _of_operation(decided: PaymentOutcome) -> OperationOutcome:
    return OperationOutcome(
        _STATUS.get(decided.status) or OperationStatus(decided.status.value),
        decided.event,
        provider_ref=decided.provider_ref or decided.attempt_ref,
        decline_code=decided.decline_code,
        reason=decided.reason,
        delay=decided.delay,
    )
