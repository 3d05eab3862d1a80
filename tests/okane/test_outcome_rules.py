"""The outcome table, row by row."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from okane.payment import Status
from okane.providers.base import Approved, Declined, NotFound, Traits, Unavailable, Unknown
from okane.store import Claim
from okane.worker.outcome_rules import OutcomeRules, PaymentOutcome
from streams import RetryPolicy
from tests.payments import PAYMENT

RULES = OutcomeRules(
    policy=RetryPolicy(base=timedelta(seconds=1), cap=timedelta(minutes=5), max_attempts=8),
    max_deliveries=5,
    look_up_delays=(timedelta(seconds=5), timedelta(seconds=15)),
)


TRAITS = Traits(
    timeout=timedelta(seconds=5), consistency_lag=timedelta(seconds=5), unknown_deadline=timedelta(hours=24)
)


def claim(*, retries: int = 0, look_ups: int = 0, since_call_s: float = 60, open_s: float = 60) -> Claim:
    return Claim(
        payment=dataclasses.replace(PAYMENT, retries=retries),
        look_up_first=True,
        look_ups=look_ups,
        since_call_s=since_call_s,
        open_s=open_s,
        valid_until_s=0,
    )


def test_an_approval_is_success() -> None:
    assert RULES.charged(claim(), Approved("ref"), TRAITS, roll=0) == PaymentOutcome(
        Status.SUCCESS, "success", provider_ref="ref"
    )
    assert RULES.looked_up(claim(), Approved("ref"), TRAITS) == PaymentOutcome(
        Status.SUCCESS, "success", provider_ref="ref"
    )


def test_a_decline_is_final() -> None:
    verdict = RULES.charged(claim(), Declined("card_declined", "no funds"), TRAITS, roll=0)
    assert (verdict.status, verdict.decline_code, verdict.delay) == (Status.FAILED_FINAL, "card_declined", None)
    assert verdict == RULES.looked_up(claim(), Declined("card_declined", "no funds"), TRAITS)


def test_an_unavailable_provider_is_tried_again_with_back_off() -> None:
    assert RULES.charged(claim(), Unavailable("503"), TRAITS, roll=0.5).delay == timedelta(seconds=0.5)
    assert RULES.charged(claim(retries=3), Unavailable("503"), TRAITS, roll=0.5).delay == timedelta(seconds=4)
    assert RULES.charged(claim(), Unavailable("503"), TRAITS, roll=0.5).status is Status.FAILED_RETRYABLE


def test_the_providers_wish_wins_over_our_back_off() -> None:
    verdict = RULES.charged(claim(), Unavailable("429", retry_after=timedelta(seconds=30)), TRAITS, roll=0)
    assert verdict.delay == timedelta(seconds=30)


def test_the_eighth_failure_is_the_last() -> None:
    assert RULES.charged(claim(retries=6), Unavailable("503"), TRAITS, roll=0).status is Status.FAILED_RETRYABLE
    spent = RULES.charged(claim(retries=7), Unavailable("503", retry_after=timedelta(seconds=30)), TRAITS, roll=0)
    assert (spent.status, spent.event, spent.delay) == (Status.FAILED_FINAL, "spent", None)


def test_an_open_outcome_is_never_failed_however_often_it_was_tried() -> None:
    verdict = RULES.charged(claim(retries=100, look_ups=100), Unknown("time-out"), TRAITS, roll=0)
    assert (verdict.status, verdict.delay) == (Status.UNKNOWN, timedelta(seconds=15))


@pytest.mark.parametrize(("look_ups", "seconds"), [(0, 5), (1, 15), (2, 15)])
def test_look_ups_come_at_growing_distances(look_ups: int, seconds: int) -> None:
    for answer in (Unknown("?"), Unavailable("503")):
        verdict = RULES.looked_up(claim(look_ups=look_ups), answer, TRAITS)
        assert verdict is not None
        assert (verdict.status, verdict.delay) == (Status.UNKNOWN, timedelta(seconds=seconds))


def test_an_outcome_open_for_a_day_goes_to_a_human() -> None:
    verdict = RULES.looked_up(claim(open_s=86_400), Unknown("?"), TRAITS)
    assert verdict is not None
    assert (verdict.status, verdict.delay) == (Status.NEEDS_REVIEW, None)


def test_not_found_counts_only_after_the_consistency_lag() -> None:
    early = RULES.looked_up(claim(since_call_s=4.9), NotFound(), TRAITS)
    assert early is not None
    assert early.status is Status.UNKNOWN
    assert RULES.looked_up(claim(since_call_s=5), NotFound(), TRAITS) is None  # charge it now, under the same key


def test_a_payment_that_keeps_crashing_its_worker_is_given_up_only_when_the_provider_never_got_it() -> None:
    spent = RULES.looked_up(claim(retries=8), NotFound(), TRAITS)
    assert spent is not None
    assert spent.status is Status.FAILED_FINAL
    assert RULES.looked_up(claim(retries=7), NotFound(), TRAITS) is None
    open_ = RULES.looked_up(claim(retries=8), Unknown("?"), TRAITS)
    assert open_ is not None
    assert open_.status is Status.UNKNOWN


def test_more_crashes_than_tries_are_for_a_human() -> None:
    assert RULES.hopeless(claim(retries=8)) is None
    hopeless = RULES.hopeless(claim(retries=9))
    assert hopeless is not None
    assert (hopeless.status, hopeless.delay) == (Status.NEEDS_REVIEW, None)


def test_a_payment_beside_poison_may_see_as_many_crashes_as_poison_has_deliveries() -> None:
    once = dataclasses.replace(RULES, policy=RetryPolicy(max_attempts=1))
    assert once.hopeless(claim(retries=5)) is None
    assert once.hopeless(claim(retries=6)) is not None


def test_without_retries_the_first_failure_is_the_last_but_a_first_try_is_made() -> None:
    once = dataclasses.replace(RULES, policy=RetryPolicy(max_attempts=1))
    assert once.looked_up(claim(retries=0), NotFound(), TRAITS) is None
    assert once.charged(claim(), Unavailable("503"), TRAITS, roll=0).status is Status.FAILED_FINAL
