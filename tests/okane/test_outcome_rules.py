"""The outcome table, row by row."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from okane.payment import NextAction, Status
from okane.providers.base import (
    Approved,
    Authorized,
    Declined,
    Fault,
    LookUpResult,
    NotFound,
    Pending,
    Traits,
    Unavailable,
    Unknown,
)
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


@pytest.mark.parametrize("capture_before", [None, datetime(2027, 1, 1, tzinfo=UTC)])
def test_an_authorization_waits_for_its_capture_under_the_name_that_the_provider_gave_it(
    capture_before: datetime | None,
) -> None:
    held = Authorized("ch_1", capture_before)
    outcome = PaymentOutcome(Status.AUTHORIZED, "authorized", attempt_ref="ch_1", capture_before=capture_before)
    assert RULES.charged(claim(), held, TRAITS, roll=0) == outcome
    assert RULES.looked_up(claim(), held, TRAITS) == outcome


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


ACTION = NextAction("https://bank.example/3ds")


def pending(*, pending_s: float = 60, look_ups: int = 1, action: NextAction | None = None) -> Claim:
    """Return the claim of a payment that the provider has and has not decided."""
    waiting = claim(look_ups=look_ups, open_s=0)
    payment = dataclasses.replace(waiting.payment, next_action=action)
    return dataclasses.replace(waiting, payment=payment, pending_s=pending_s)


def test_a_charge_that_the_provider_decides_later_is_submitted_and_polled_soon() -> None:
    verdict = RULES.charged(claim(look_ups=5), Pending("pi_1"), TRAITS, roll=0)
    assert verdict == PaymentOutcome(Status.SUBMITTED, "pending", delay=timedelta(minutes=1), attempt_ref="pi_1")


def test_a_charge_that_needs_the_customer_says_where_to_send_him() -> None:
    verdict = RULES.charged(claim(), Pending("pi_1", ACTION), TRAITS, roll=0)
    assert (verdict.status, verdict.next_action) == (Status.REQUIRES_ACTION, ACTION)


@pytest.mark.parametrize(("look_ups", "minutes"), [(1, 5), (2, 15), (3, 60), (9, 60)])
def test_a_pending_payment_is_polled_at_growing_distances(look_ups: int, minutes: int) -> None:
    verdict = RULES.looked_up(pending(look_ups=look_ups), Pending("pi_1"), TRAITS)
    assert verdict is not None
    assert (verdict.status, verdict.delay) == (Status.SUBMITTED, timedelta(minutes=minutes))


@pytest.mark.parametrize("answer", [Unknown("?"), Unavailable("503"), Unavailable("429", fault="limit"), NotFound()])
@pytest.mark.parametrize("action", [None, ACTION])
def test_a_pending_payment_stays_so_while_look_ups_say_nothing(answer: LookUpResult, action: NextAction | None) -> None:
    """However long: the deadline of an unknown outcome is not its deadline."""
    verdict = RULES.looked_up(pending(pending_s=2 * 86_400, action=action), answer, TRAITS)
    assert verdict is not None
    assert verdict.status is (Status.SUBMITTED if action is None else Status.REQUIRES_ACTION)
    assert verdict.next_action == action


@pytest.mark.parametrize("answer", [Pending("pi_1"), Unknown("?"), NotFound()])
def test_a_payment_pending_for_a_month_goes_to_a_human(answer: LookUpResult) -> None:
    verdict = RULES.looked_up(pending(pending_s=30 * 86_400), answer, TRAITS)
    assert verdict is not None
    assert (verdict.status, verdict.delay) == (Status.NEEDS_REVIEW, None)


def test_a_stop_amid_the_poll_of_a_pending_payment_leaves_it_pending() -> None:
    verdict = RULES.stopped(pending(action=ACTION), "look_up", TRAITS)
    assert (verdict.status, verdict.next_action) == (Status.REQUIRES_ACTION, ACTION)


def test_an_outcome_that_no_look_up_can_decide_goes_to_a_human_at_once() -> None:
    answer = Unknown("charged with another amount", at_once=True)
    for verdict in (
        RULES.charged(claim(open_s=0), answer, TRAITS, roll=0),
        RULES.looked_up(claim(open_s=0), answer, TRAITS),
        RULES.looked_up(pending(), answer, TRAITS),
    ):
        assert verdict is not None
        assert (verdict.status, verdict.delay) == (Status.NEEDS_REVIEW, None)


@pytest.mark.parametrize(("fault", "seconds"), [("limit", 1.5), ("config", 45)])
def test_only_the_providers_own_fault_uses_up_a_retry(fault: Fault, seconds: float) -> None:
    """However many retries are used up already."""
    verdict = RULES.charged(claim(retries=7), Unavailable("no", fault=fault), TRAITS, roll=0.5)
    assert (verdict.status, verdict.event) == (Status.FAILED_RETRYABLE, "deferred")
    assert verdict.delay == timedelta(seconds=seconds)


def test_a_rate_limit_that_names_a_time_is_waited_for() -> None:
    verdict = RULES.charged(claim(), Unavailable("429", timedelta(seconds=7), "limit"), TRAITS, roll=0.5)
    assert verdict.delay == timedelta(seconds=7)


def test_a_drained_provider_that_never_got_the_charge_does_not_get_it_now() -> None:
    drained = dataclasses.replace(claim(), may_charge=False)
    verdict = RULES.looked_up(drained, NotFound(), TRAITS)
    assert verdict is not None
    assert (verdict.status, verdict.event) == (Status.FAILED_RETRYABLE, "deferred")


def test_a_decline_keeps_the_providers_name_for_the_attempt_apart_from_that_of_a_charge() -> None:
    verdict = RULES.charged(claim(), Declined("card_declined", provider_ref="pi_1"), TRAITS, roll=0)
    assert (verdict.provider_ref, verdict.attempt_ref) == (None, "pi_1")
