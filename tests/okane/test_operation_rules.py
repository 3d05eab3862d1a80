"""The outcome table of captures, voids and refunds: that of payments, in an operation's words."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from okane.operation import TRANSITIONS, Operation, OperationKind, OperationStatus
from okane.payment import Payment, Status
from okane.providers.base import (
    Approved,
    Declined,
    NotFound,
    OperationLookUp,
    OperationResult,
    Pending,
    Unavailable,
    Unknown,
)
from okane.store.operation_records import OperationClaim
from okane.worker.operation_rules import OperationOutcome, OperationRules
from tests.okane.test_outcome_rules import RULES, TRAITS
from tests.payments import PAYMENT

_S = OperationStatus
TABLE = OperationRules(RULES)
NOW = datetime(2026, 11, 30, tzinfo=UTC)
# The payment itself was tried often: only the operation's own tries count.
PAID = dataclasses.replace(PAYMENT, status=Status.SUCCESS, retries=7)
REFUND = Operation(
    id=uuid4(),
    payment_id=PAID.id,
    account_id="default",
    kind=OperationKind.REFUND,
    idempotency_key="key",
    amount_minor=100,
    currency="EUR",
    status=_S.PROCESSING,
    attempts=1,
    retries=0,
    version=1,
    provider="http",
    provider_key="key",
    created_at=NOW,
    updated_at=NOW,
    metadata={},
)


def claim(
    *, retries: int = 0, look_ups: int = 0, since_call_s: float = 60, open_s: float = 60, pending_s: float | None = None
) -> OperationClaim:
    return OperationClaim(
        operation=dataclasses.replace(REFUND, retries=retries),
        payment=PAID,
        look_up_first=True,
        look_ups=look_ups,
        since_call_s=since_call_s,
        open_s=open_s,
        valid_until_s=0,
        pending_s=pending_s,
    )


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (Approved("re_1"), OperationOutcome(_S.SUCCESS, "success", provider_ref="re_1")),
        (
            Declined("expired_card", "no", "re_1"),
            OperationOutcome(
                _S.FAILED_FINAL,
                "declined",
                decline_code="expired_card",
                reason="expired_card: no",
                provider_ref="re_1",
            ),
        ),
        (
            Pending("re_1"),
            OperationOutcome(_S.SUBMITTED, "pending", provider_ref="re_1", delay=timedelta(minutes=1)),
        ),
        (Unknown("late"), OperationOutcome(_S.UNKNOWN, "unknown", reason="late", delay=timedelta(seconds=5))),
        (
            Unavailable("503", timedelta(seconds=3)),
            OperationOutcome(_S.FAILED_RETRYABLE, "unavailable", reason="503", delay=timedelta(seconds=3)),
        ),
        (
            Unavailable("429", timedelta(seconds=3), fault="limit"),
            OperationOutcome(_S.FAILED_RETRYABLE, "deferred", reason="429", delay=timedelta(seconds=3)),
        ),
        (Unknown("key reused", at_once=True), OperationOutcome(_S.NEEDS_REVIEW, "needs_review", reason="key reused")),
    ],
)
def test_every_answer_has_its_row(result: OperationResult, outcome: OperationOutcome) -> None:
    assert TABLE.operated(claim(), result, TRAITS, roll=0) == outcome
    assert outcome.status in TRANSITIONS[_S.PROCESSING]


def test_its_own_tries_are_counted_and_then_it_is_given_up() -> None:
    assert TABLE.operated(claim(retries=7), Unavailable("503"), TRAITS, roll=0) == OperationOutcome(
        _S.FAILED_FINAL, "spent", reason="503"
    )
    assert TABLE.hopeless(claim(retries=8)) is None
    hopeless = TABLE.hopeless(claim(retries=9))
    assert hopeless is not None
    assert hopeless.status is _S.NEEDS_REVIEW


@pytest.mark.parametrize(
    ("found", "since_call_s", "status"),
    [
        (NotFound(), 60, None),  # never arrived: it may be executed under the same key
        (NotFound(), 1, _S.UNKNOWN),  # within the lag its absence proves nothing
        (Approved("re_1"), 60, _S.SUCCESS),
        (Declined("no"), 60, _S.FAILED_FINAL),
        (Unavailable("503"), 60, _S.UNKNOWN),  # a look-up that failed says nothing about the operation
        (Unknown("late"), 60, _S.UNKNOWN),
    ],
)
def test_a_look_up_decides_or_leaves_it_open(
    found: OperationLookUp, since_call_s: float, status: OperationStatus | None
) -> None:
    decided = TABLE.looked_up(claim(since_call_s=since_call_s), found, TRAITS)
    assert (None if decided is None else decided.status) is status


def test_what_the_provider_has_is_never_executed_again() -> None:
    decided = TABLE.looked_up(claim(pending_s=60), NotFound(), TRAITS)
    assert decided is not None
    assert decided.status is _S.SUBMITTED


def test_an_outcome_that_stays_open_for_too_long_goes_to_a_human() -> None:
    decided = TABLE.looked_up(claim(open_s=86_400), Unknown("late"), TRAITS)
    assert decided is not None
    assert decided.status is _S.NEEDS_REVIEW


def test_a_call_that_a_stop_broke_off_is_open() -> None:
    stopped = TABLE.stopped(claim(), "refund", TRAITS)
    assert (stopped.status, stopped.reason) == (_S.UNKNOWN, "its worker was stopped during the refund")


def test_the_payment_of_the_claim_is_left_as_it_is() -> None:
    one = claim(retries=3)
    TABLE.operated(one, Unavailable("503"), TRAITS, roll=0)
    assert one.payment == PAID


def test_the_payments_names_of_statuses_are_those_of_operations() -> None:
    """`_of_operation` maps by value; a customer's part in an operation does not exist."""
    assert isinstance(PAID, Payment)
    assert {status.value for status in _S} <= {status.value for status in Status}
