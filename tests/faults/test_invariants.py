"""Every way of breaking an invariant is caught, and named as that invariant alone; what holds is let through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from okane.payment import TRANSITIONS, Status
from streams import ConsumerStats
from tests.faults.histories import (
    BY_NAME,
    CANARY,
    STARTED_S,
    Spoil,
    Story,
    both,
    broker,
    good,
    having,
    lane,
    request,
    seen,
    story,
    with_charges,
    with_event,
    with_log,
    with_observations,
    with_other_requests,
    with_requests,
    with_row,
    with_story,
    without,
)
from torture.history.journals import EventRow, History, ProviderCounts, SwitchedTime
from torture.invariants.at_rest import sweep_repairs_little
from torture.invariants.leaks import is_card_number
from torture.invariants.verdict import INVARIANTS, check

PLAIN = BY_NAME["plain"]
OF_WEBHOOKS = [f"I{number}" for number in range(13, 20)]  # test_webhook_invariants.py has them
OF_OPERATIONS = ["I21", "I22", *(f"I{number}" for number in range(26, 33))]  # test_operation_invariants.py
OF_DECISIONS = ["I33", "I34"]  # test_decision_invariants.py
OF_METHODS = ["I35", "I36"]  # test_method_invariants.py
OF_DISPUTES = ["I37", "I38"]  # test_dispute_invariants.py
OF_ROUTES = ["I39"]  # test_route_invariants.py
NEVER_HEARD = BY_NAME["never-heard"]
CARD = "4111111111111111"


def test_a_history_full_of_trouble_holds() -> None:
    verdict = check(good())
    assert verdict.violations == []
    assert verdict.holds
    assert verdict.not_judged == [
        "I11",
        *OF_WEBHOOKS,
        *OF_OPERATIONS,
        *OF_DECISIONS,
        *OF_METHODS,
        *OF_DISPUTES,
        *OF_ROUTES,
    ]  # there were faults, and neither webhooks nor refunds nor people
    assert verdict.counts == {f"I{number}": 0 for number in range(1, 40)}


def test_the_order_in_which_a_journal_comes_does_not_matter() -> None:
    history = good()
    charges = list(reversed(history.charges))
    rows = dict(reversed(list(history.rows.items())))
    assert check(replace(history, charges=charges, rows=rows)).holds


def test_two_rows_for_one_key_are_found_in_the_rows_and_in_the_answers() -> None:
    double = story("x", "canceled")
    double = replace(double, row=replace(double.row, key="key-plain"))
    verdict = check(both(with_story(double), with_requests(request(double, status=200)))(good()))
    assert {violation.what for violation in verdict.violations} == {
        "two rows have the key",
        "the key led to another payment before, id-plain",
    }


def test_nothing_is_not_judged_as_good_without_saying_so() -> None:
    verdict = check(History())
    assert verdict.holds
    assert verdict.not_judged == [invariant.name for invariant in INVARIANTS]


BROKEN: dict[str, tuple[str, Spoil]] = {
    # I1
    "acknowledged and lost": ("I1", without("poison")),
    "acknowledged with another amount": ("I1", with_other_requests("poison", amount_minor=999)),
    "a row of another amount": ("I1", with_row("poison", amount_minor=999)),
    "a row of another currency": ("I1", with_row("poison", currency="EUR")),
    "acknowledged without an id": ("I1", with_requests(request(PLAIN, status=200, payment_id=None))),
    "acknowledged and not shown": ("I1", with_observations(seen(PLAIN, http_status=404, status=None))),
    "shown with another amount": ("I1", with_observations(seen(PLAIN, amount_minor=999))),
    "shown with another currency": ("I1", with_observations(seen(PLAIN, currency="EUR"))),
    # I2
    "charged twice under one key": ("I2", with_charges(replace(BY_NAME["retried"].charges[0], at_s=STARTED_S + 9))),
    "charged twice under two keys": (
        "I2",
        with_story(
            story("x", "claimed", "spent", "retried", "claimed", "success").charged().charged(key="k:2", after_claim=2)
        ),
    ),
    # I3
    "success without a charge": ("I3", with_story(story("x", "claimed", "success"))),
    "success of a declined charge": ("I3", with_story(story("x", "claimed", "success").charged(captured=False))),
    "charged another amount": ("I3", having(charges=[replace(each, amount_minor=1) for each in good().charges])),
    "charged another currency": ("I3", having(charges=[replace(each, currency="EUR") for each in good().charges])),
    "charged without a payment": ("I3", with_charges(replace(PLAIN.charges[0], payment_id="id-nobody"))),
    "a key for two payments": ("I3", having(provider=ProviderCounts(conflicts=1))),
    # I4
    "declined and charged": ("I4", with_story(story("x", "claimed", "declined").charged())),
    "spent and charged": ("I4", with_story(story("x", "claimed", "unavailable", "claimed", "spent").charged())),
    "canceled and charged": ("I4", with_story(story("x", "claimed", "unavailable", "canceled").charged())),
    # I5
    "stuck before anything": ("I5", with_story(story("x"))),
    "stuck in processing": ("I5", with_story(story("x", "claimed").charged())),
    "stuck with retries left": ("I5", with_story(story("x", "claimed", "unavailable"))),
    "stuck in doubt": ("I5", with_story(story("x", "claimed", "unknown").charged())),
    "a review without a reason": ("I5", with_row("doubtful", reason=None)),
    "a review with an empty reason": ("I5", with_row("doubtful", reason=" ")),
    # I6
    "a success undone": ("I6", with_story(story("x", "claimed", "success", "claimed", "success").charged())),
    "a success retried": (
        "I6",
        with_story(story("x", "claimed", "success", "retried", "claimed", "success").charged()),
    ),
    "a failure claimed again": (
        "I6",
        with_story(story("x", "claimed", "declined", "claimed", "success").charged(after_claim=2)),
    ),
    "a failure reviewed for poison": (
        "I6",
        with_story(story("x", "claimed", "spent", "needs_review", reason="poison")),
    ),
    "a late result that settles": (
        "I6",
        with_story(story("x", "claimed", "unavailable", "claimed", "spent", "late_result:1:success").charged()),
    ),
    "a late result that retries": (
        "I6",
        with_story(
            story("x", "claimed", "spent", "late_result:1:pending", "claimed", "success").charged(after_claim=2)
        ),
    ),
    "a late result that reopens": (
        "I6",
        with_story(story("x", "claimed", "success", "late_result:1:needs_review", reason="late").charged()),
    ),
    "settled without a claim": ("I6", with_story(story("x", "claimed", "unavailable", "success").charged())),
    "a review undone by a worker": (
        "I6",
        with_story(story("x", "claimed", "needs_review", "success").charged()),
    ),
    "canceled while processing": ("I6", with_story(story("x", "claimed", "canceled"))),
    "an outcome with another status": (
        "I6",
        both(
            with_event("spent", 4, event="declined", status=Status.CANCELED), with_row("spent", status=Status.CANCELED)
        ),
    ),
    "a version is missing": (
        "I6",
        lambda history: replace(
            history,
            events={**history.events, "id-retried": [line for line in BY_NAME["retried"].events if line.version != 2]},
        ),
    ),
    "a version comes twice": ("I6", with_event("retried", 2, version=1)),
    "a change without an event": ("I6", with_row("plain", version=3)),
    "a status without an event": ("I6", both(with_row("doubtful", status=Status.SUCCESS))),
    "a new payment that is none": (
        "I6",
        with_story(replace(story("x"), row=replace(story("x").row, status=Status.CANCELED))),
    ),
    "events of no payment": (
        "I6",
        lambda history: replace(history, events={**history.events, "id-nobody": PLAIN.events}),
    ),
    "a client saw a success that was none": ("I6", with_observations(seen(BY_NAME["spent"], status="success"))),
    # I7
    "one key for two payments": ("I7", with_requests(request(PLAIN, status=200, payment_id="id-repeated"))),
    "one key for two payments, the other way round": (
        "I7",
        lambda history: replace(
            history, requests=[request(PLAIN, status=200, payment_id="id-repeated"), *history.requests]
        ),
    ),
    "the payment of another key": ("I7", with_requests(request(NEVER_HEARD, key="key-other"))),
    "created twice": ("I7", with_requests(request(PLAIN))),
    "two rows for one key": (
        "I7",
        with_story(replace(story("x", "canceled"), row=replace(story("x", "canceled").row, key="key-plain"))),
    ),
    "another amount accepted": ("I7", with_requests(request(PLAIN, status=200, amount_minor=999))),
    "another currency accepted": ("I7", with_requests(request(PLAIN, status=200, currency="EUR"))),
    "another meaning refused wrongly": ("I7", with_requests(request(PLAIN, status=409, amount_minor=999))),
    "a repeat refused": ("I7", with_requests(request(PLAIN, status=422))),
    # I8
    "an attempt claimed twice": (
        "I8",
        both(with_event("crashed", 2, attempt=1), with_event("crashed", 3, attempt=1), with_row("crashed", attempts=1)),
    ),
    "an attempt left out": (
        "I8",
        both(with_event("crashed", 2, attempt=3), with_event("crashed", 3, attempt=3), with_row("crashed", attempts=3)),
    ),
    "settled under a stale attempt": ("I8", with_event("crashed", 3, attempt=1)),
    "settled under a claim to come": ("I8", with_event("crashed", 3, attempt=3)),
    "retried under a stale attempt": ("I8", with_event("replayed", 3, attempt=0)),
    "a late result of no attempt": ("I8", with_event("crashed", 4, attempt=3)),
    "a row that counts more": ("I8", with_row("crashed", attempts=3)),
    "a row that counts less": ("I8", with_row("crashed", attempts=1)),
    # I9
    "called before the claim": ("I9", having(charges=[replace(each, at_s=STARTED_S) for each in good().charges])),
    "called without a claim": ("I9", with_story(story("x", "needs_review", reason="poison").charged(after_claim=0))),
    "called twice under one claim": (
        "I9",
        with_story(story("x", "claimed", "success").charged().charged(captured=False)),
    ),
    "a second call before the second claim": (
        "I9",
        with_story(story("x", "claimed", "unknown", "claimed", "success").charged(captured=False).charged()),
    ),
    "called under another key": ("I9", with_story(story("x", "claimed", "success").charged(key="id-x:attempt-1"))),
    "more calls than claims": ("I9", having(provider=ProviderCounts(calls=1000))),
    # I10
    "entries left": ("I10", having(broker=broker(lanes=(lane("low"), lane("critical", length=1))))),
    "entries pending": ("I10", having(broker=broker(lanes=(lane("low", pending=1),)))),
    "delayed wake-ups left": ("I10", having(broker=broker(delayed=1, next_due_ms=5))),
    "a dead consumer left": (
        "I10",
        having(broker=broker(consumers=(ConsumerStats(name="w9", lane="low", pending=0, idle_ms=9),))),
    ),
    "an operation's entry left": ("I10", having(operation_broker=broker(lanes=(lane("refund", length=1),)))),
    "an operation's wake-up left": ("I10", having(operation_broker=broker(delayed=1, next_due_ms=5))),
    # I11
    "repairs without faults": ("I11", having(faults=False)),
    # I12
    "a canary": ("I12", with_log("started", f"password={CANARY}")),
    "a canary in an address": ("I12", with_log("postgresql://okane:s3cr3t%2Fof%20a%20canary@db/okane")),
    "a canary in JSON": ("I12", both(having(canaries=['a "quoted" one']), with_log(r'{"key": "a \"quoted\" one"}'))),
    "a card": ("I12", with_log(f'{{"card": "{CARD}"}}')),
    "a card of 15 digits": ("I12", with_log("paid by 378282246310005.")),
    "another card": ("I12", with_log("pan=5555555555554444, ok")),
    "a card at the very end": ("I12", with_log("6011111111111117")),
    # I20
    "charged by two providers": (
        "I20",
        with_story(
            story("x", "claimed", "unavailable", "claimed::stripe", "success")
            .charged()
            .charged(after_claim=2, provider="stripe")
        ),
    ),
    # I23
    "claimed for another provider in doubt": (
        "I23",
        with_story(
            story("x", "claimed", "unknown", "claimed::stripe", "success").charged(after_claim=2, provider="stripe")
        ),
    ),
    "claimed for another provider after a crash": (
        "I23",
        with_story(story("x", "claimed", "claimed::stripe", "success").charged(after_claim=2, provider="stripe")),
    ),
    "claimed for another provider while one decides": (
        "I23",
        with_story(
            story("x", "claimed", "pending", "claimed::stripe", "success").charged(after_claim=2, provider="stripe")
        ),
    ),
    "a pin forgotten later": (
        "I23",
        with_story(
            story("x", "claimed", "unknown", "claimed", "unavailable", "claimed::stripe", "success").charged(
                after_claim=3, provider="stripe"
            )
        ),
    ),
    "an outcome of another provider": ("I23", with_event("plain", 2, provider="stripe")),
    # I24
    "charged while it was switched off": (
        "I24",
        having(
            switched=[SwitchedTime(provider="stripe", mode="off", since_s=STARTED_S + 2.5, until_s=STARTED_S + 3.5)],
        ),
    ),
    "charged while it was drained": (
        "I24",
        having(
            switched=[SwitchedTime(provider="bank", mode="drain", since_s=STARTED_S + 0.5, until_s=STARTED_S + 1.5)]
        ),
    ),
    "looked up while it was switched off": (
        "I24",
        having(
            switched=[SwitchedTime(provider="stripe", mode="off", since_s=STARTED_S + 4.5, until_s=STARTED_S + 5.5)]
        ),
    ),
    # I25
    "a rate limit that burned a retry": ("I25", with_row("limited", retries=1)),
    "a failure that burned none": ("I25", with_row("retried", retries=1)),
}


@pytest.mark.parametrize(("invariant", "spoil"), BROKEN.values(), ids=BROKEN)
def test_each_way_of_breaking_an_invariant_is_caught_as_that_alone(invariant: str, spoil: Spoil) -> None:
    verdict = check(spoil(good()))
    assert {violation.invariant for violation in verdict.violations} == {invariant}, verdict.violations
    assert not verdict.holds
    assert verdict.counts[invariant] == len(verdict.violations)


def test_every_invariant_has_a_way_of_being_broken() -> None:
    names = {invariant.name for invariant in INVARIANTS}
    assert {invariant for invariant, _ in BROKEN.values()} == names - {
        *OF_WEBHOOKS,
        *OF_OPERATIONS,
        *OF_DECISIONS,
        *OF_METHODS,
        *OF_DISPUTES,
        *OF_ROUTES,
    }


def test_the_sweep_may_repair_less_than_one_in_a_thousand_without_faults() -> None:
    def repaired(repairs: float, rows: int) -> list[str]:
        history = History(
            rows={str(number): PLAIN.row for number in range(rows)},
            metrics={"w1": {'okane_sweep_repairs_total{lane="low"}': repairs}, "w2": {"okane_sweep_repairs_total": 0}},
            faults=False,
        )
        return [violation.invariant for violation in sweep_repairs_little(history)]

    assert repaired(1, 1001) == []
    assert repaired(1, 1000) == ["I11"]
    assert repaired(0, 0) == []
    assert repaired(1, 0) == ["I11"]


# Every event that may come next, by status. A late result may come at any time.
NEXT: Mapping[Status, Sequence[str]] = {
    Status.PENDING: ("claimed", "canceled", "needs_review"),
    Status.PROCESSING: (
        "claimed",
        "success",
        "declined",
        "spent",
        "unavailable",
        "deferred",
        "unknown",
        "pending",
        "authorized",
        "needs_review",
    ),
    Status.AUTHORIZED: ("needs_review",),
    Status.FAILED_RETRYABLE: ("claimed", "retried", "canceled", "needs_review"),
    Status.UNKNOWN: ("claimed", "needs_review"),
    Status.REQUIRES_ACTION: ("claimed", "needs_review"),
    Status.SUBMITTED: ("claimed", "needs_review"),
    Status.SUCCESS: (),
    Status.FAILED_FINAL: ("retried", "late_result:1:needs_review"),
    Status.CANCELED: ("late_result:1:needs_review",),
    Status.NEEDS_REVIEW: ("decided",),
}


@st.composite
def lives(draw: st.DrawFn) -> Story:
    """A payment to which nothing forbidden happened."""
    words: list[str] = ["claimed"]
    for _ in range(draw(st.integers(0, 12))):
        one = story("x", *words)
        words.append(draw(st.sampled_from([*NEXT[one.row.status], f"late_result:{one.row.attempts}"])))
    return story("x", *words, reason="for a review")


def alone(one: Story) -> History:
    return History(rows={one.row.id: one.row}, events={one.row.id: one.events})


def broken_in(one: Story) -> set[str]:
    return {each.invariant for each in check(alone(one)).violations} & {"I6", "I8"}


@given(one=lives())
def test_a_life_in_which_nothing_forbidden_happened_holds(one: Story) -> None:
    assert broken_in(one) == set()


@given(one=lives(), data=st.data())
def test_a_life_with_a_hole_is_caught(one: Story, data: st.DataObject) -> None:
    hole = data.draw(st.integers(0, len(one.events) - 1))
    assert "I6" in broken_in(replace(one, events=[*one.events[:hole], *one.events[hole + 1 :]]))


@given(one=lives(), data=st.data())
def test_an_event_under_a_wrong_attempt_is_caught(one: Story, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(one.events) - 1))
    line = one.events[place]
    wrong = replace(line, attempt=line.attempt + data.draw(st.integers(1, 3)))
    if line.event == "late_result":  # an earlier attempt's may come late, too
        wrong = replace(line, attempt=one.row.attempts + 1)
    assert broken_in(replace(one, events=[*one.events[:place], wrong, *one.events[place + 1 :]])) == {"I8"}


ROADS: Mapping[Status, Sequence[str]] = {
    Status.PENDING: (),
    Status.PROCESSING: ("claimed",),
    Status.SUCCESS: ("claimed", "success"),
    Status.FAILED_RETRYABLE: ("claimed", "unavailable"),
    Status.FAILED_FINAL: ("claimed", "declined"),
    Status.UNKNOWN: ("claimed", "unknown"),
    Status.CANCELED: ("canceled",),
    Status.REQUIRES_ACTION: ("claimed", "pending:1:requires_action"),
    Status.SUBMITTED: ("claimed", "pending"),
    Status.AUTHORIZED: ("claimed", "authorized"),
    Status.NEEDS_REVIEW: ("needs_review",),
}
WORDS = sorted({word.partition(":")[0] for words in NEXT.values() for word in words} | {"something new"})


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("before", Status)
def test_no_event_makes_a_change_that_the_table_forbids(before: Status, word: str) -> None:
    for after in Status:
        road = story("x", *ROADS[before], reason="for a review")
        attempt = road.row.attempts + (word == "claimed")
        last = EventRow(
            version=road.row.version + 1, at_s=STARTED_S + 9, event=word, status=after, attempt=attempt, actor="w1"
        )
        row = replace(road.row, status=after, version=last.version, attempts=attempt)
        let_through = broken_in(Story(row, [*road.events, last])) == set()
        kept = word == "late_result" and after is before
        assert kept or after in TRANSITIONS[before] or not let_through, (before, word, after)
        if before.is_terminal and word not in ("retried", "late_result"):
            assert not let_through


@given(
    number=st.integers(0, 2**128 - 1),
    since_epoch_s=st.floats(1.6e9, 2.0e9),
    ratio=st.floats(0, 1e6, allow_nan=False),
)
def test_ids_times_and_measures_are_not_taken_for_cards(number: int, since_epoch_s: float, ratio: float) -> None:
    uuid = UUID(int=number)
    moments = [since_epoch_s, int(since_epoch_s * 1e3), int(since_epoch_s * 1e6), int(since_epoch_s * 1e9)]
    line = " ".join(map(str, [uuid, uuid.hex, f"pay_{uuid.hex}", *moments, f"{moments[1]}-0", ratio, f"{ratio:.16f}"]))
    assert check(History(logs={"w1": [line]})).holds


@given(digits=st.text("0123456789", min_size=15, max_size=15))
def test_one_check_digit_in_ten_makes_a_card(digits: str) -> None:
    assert sum(is_card_number(digits + check_digit) for check_digit in "0123456789") == 1


def test_known_cards_are_cards() -> None:
    for card in (CARD, "378282246310005", "5555555555554444", "6011111111111117"):
        assert is_card_number(card)
