"""Every way of breaking an invariant of webhooks is caught, and named as that invariant alone; what holds is let through."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from okane.payment import Status
from okane.webhooks.types import EventType, matches, type_of_change
from tests.faults.histories import STARTED_S, good, story
from tests.faults.webhook_histories import (
    ALL,
    DEAD_FROM_S,
    DEATH,
    DELETED,
    ENDED_S,
    ENDPOINTS,
    OTHER,
    ROTATED,
    ROTATED_S,
    STOP,
    Place,
    Spoil,
    arrival,
    having,
    having_tables,
    later,
    of,
    request,
    with_requests,
    with_webhooks,
)
from torture.history.journals import History
from torture.history.troubles import delays, stalls, troubles
from torture.history.webhooks import CONFIRMED_S, Delay, Secret, Trouble, read_received, reported, type_of
from torture.invariants.verdict import check
from torture.options import TortureOptions
from torture.receiver.journal import ReceiverJournal
from torture.system.crash_points import DELAY_S
from torture.system.shape import Shape
from torture.system.tally import Ending, FaultTime, Stall, Strike, Tally

OF_WEBHOOKS = [f"I{number}" for number in range(13, 20)]
OF_OPERATIONS = ["I21", "I22", *(f"I{number}" for number in range(26, 33))]  # of which there are none here
OF_PEOPLE = [f"I{number}" for number in range(33, 40)]  # and of what they bring about
PLAIN = Place(ALL.path, "plain", 2)
RETRIED = Place(ALL.path, "retried", 2)
AT_ROTATED = Place(ROTATED.path, "plain", 2)


AT_ONCE_S = 0.1  # until its result is written, as a rule
RAISED = replace(DEATH, what="failpoint in dispatcher-1", most=1)
SIGNED_LATE = with_requests(lambda one: [later(one, ROTATED_S + CONFIRMED_S - STARTED_S)], AT_ROTATED)
SENT_AGAIN = with_requests(lambda one: [one, later(one, 30)], PLAIN)


def death_after(seconds: float) -> Trouble:
    """The death of a dispatcher, so long after the end of the request at PLAIN."""
    [one] = [
        one
        for one in of(with_webhooks()).received
        if (one.path, one.payment_id, one.version) == (PLAIN.path, f"id-{PLAIN.payment}", PLAIN.version)
    ]
    return replace(DEATH, since_s=one.ended_s + seconds, until_s=one.ended_s + seconds + 0.1)


def stalled_after(seconds: float, *, by_s: float) -> Delay:
    """A stall of the machine, so long after the end of the request at PLAIN."""
    since_s = death_after(seconds).since_s
    return Delay(since_s, since_s + by_s, by_s)


def slow_beside_the_dead(history: History) -> History:
    """Half of the events were committed before an endpoint died; the others after it, and took two seconds."""
    webhooks = of(history)
    endpoints = [replace(ALL, path=f"/all/{number}") for number in range(3)]
    committed_s, received = {}, []
    for row in webhooks.tables.log:
        is_before = row.position <= len(webhooks.tables.log) // 2
        at_s = (STARTED_S + 500 if is_before else DEAD_FROM_S) + row.position
        committed_s[row.payment_id, row.version] = at_s
        received += [arrival(one, row, at_s=at_s + (0 if is_before else 2)) for one in endpoints]
    # The versions of a payment are in order still.
    assert list(committed_s.values()) == sorted(committed_s.values())
    tables = replace(webhooks.tables, committed_s=committed_s, done_to={})
    return having(endpoints=endpoints, received=received, tables=tables)(history)


BROKEN: dict[str, tuple[str, Spoil]] = {
    # I13
    "never sent": ("I13", with_requests(lambda _: [], PLAIN)),
    "never accepted": ("I13", request(PLAIN, accepted=False)),
    "given up without a reason": (
        "I13",
        lambda history: having_tables(given_up={("e-all", position_of(history, "plain", 2)): " "})(
            with_requests(lambda _: [], PLAIN)(history)
        ),
    ),
    "logged as another type": (
        "I13",
        lambda history: having_tables(
            log=[
                replace(row, type="payment.failed") if (row.payment_id, row.version) == ("id-plain", 2) else row
                for row in of(history).tables.log
            ]
        )(history),
    ),
    # I14
    "two requests at once": (
        "I14",
        with_requests(lambda one: [replace(one, accepted=False), later(one, 0.01)], PLAIN),
    ),
    "the later version first": (
        "I14",
        with_requests(lambda one: [later(one, 10)], RETRIED),
    ),
    # I15
    "not signed": ("I15", request(PLAIN, signed_by=())),
    "signed for another day": ("I15", request(PLAIN, skew_s=-301.0)),
    "not to be read": ("I15", request(PLAIN, broken="KeyError: 'webhook-id'")),
    "an id of another event": ("I15", request(PLAIN, event_id="evt_other_2")),
    "another body": (
        "I15",
        with_requests(lambda one: [replace(one, accepted=False), later(one, 9, digest="another")], PLAIN),
    ),
    "signed with the older secret for too long": ("I15", SIGNED_LATE),
    # I16
    "sent after the deletion": (
        "I16",
        having(
            endpoints=[replace(one, deleted_s=STARTED_S - 5) if one.path == "/deleted/1" else one for one in ENDPOINTS]
        ),
    ),
    "sent to another account": (
        "I16",
        with_requests(lambda one: [one, replace(one, path=OTHER.path)], PLAIN),
    ),
    "of a type that was not subscribed to": (
        "I16",
        with_requests(lambda one: [one, replace(one, path=ROTATED.path)], RETRIED),
    ),
    # I17
    "rows in the outbox": ("I17", having_tables(outbox_changes=1)),
    "a queue that lags": ("I17", having_tables(done_to={"e-all": 1})),
    "a delivery that waits": ("I17", having_tables(waiting={"e-all": 1})),
    "a hole in the log": ("I17", lambda history: having_tables(last=of(history).tables.last + 1, done_to={})(history)),
    "an event twice in the log": (
        "I17",
        lambda history: having_tables(
            log=[*of(history).tables.log, replace(of(history).tables.log[-1], position=of(history).tables.last + 1)],
            last=of(history).tables.last + 1,
            done_to={},
        )(history),
    ),
    # I18
    "sent again for no reason": ("I18", with_requests(lambda one: [one, later(one, 30)], PLAIN)),
    "sent again long before its owner's death": (
        "I18",
        lambda history: having(troubles=[death_after(AT_ONCE_S + 3)])(SENT_AGAIN(history)),
    ),
    "twice sent again, though only one answer was lost": (
        "I18",
        lambda history: having(troubles=[RAISED])(
            with_requests(lambda one: [one, later(one, 30)], RETRIED)(SENT_AGAIN(history))
        ),
    ),
    # I19
    "slow beside a dead endpoint": ("I19", slow_beside_the_dead),
}


def first_at(history: History, path: str) -> float:
    """Return when the first request came to a path."""
    return min(one.began_s for one in of(history).received if one.path == path)


def position_of(history: History, payment: str, version: int) -> int:
    return next(
        row.position for row in of(history).tables.log if (row.payment_id, row.version) == (f"id-{payment}", version)
    )


def test_a_delivered_history_holds() -> None:
    verdict = check(with_webhooks())
    assert verdict.violations == []
    # Too few payments were beside the dead endpoint.
    assert verdict.not_judged == ["I11", "I19", *OF_OPERATIONS, *OF_PEOPLE]


def test_a_history_without_webhooks_is_not_judged_by_their_invariants() -> None:
    verdict = check(good())
    assert verdict.holds
    assert set(OF_WEBHOOKS) <= set(verdict.not_judged)


@pytest.mark.parametrize(("invariant", "spoil"), BROKEN.values(), ids=BROKEN)
def test_each_way_of_breaking_an_invariant_is_caught_as_that_alone(invariant: str, spoil: Spoil) -> None:
    verdict = check(spoil(with_webhooks()))
    assert {violation.invariant for violation in verdict.violations} == {invariant}, verdict.violations
    assert verdict.counts[invariant] == len(verdict.violations)


def test_every_invariant_has_a_way_of_being_broken() -> None:
    assert {invariant for invariant, _ in BROKEN.values()} == set(OF_WEBHOOKS)


EXCUSED: dict[str, Spoil] = {
    "given up with a reason": lambda history: having_tables(
        given_up={("e-all", position_of(history, "plain", 2)): "status_5xx"}
    )(with_requests(lambda _: [], PLAIN)(history)),
    "committed before the creation was answered": having(
        endpoints=[replace(one, created_s=STARTED_S + 100) for one in ENDPOINTS], received=[]
    ),
    "in flight twice while its owner was stopped": lambda history: having(troubles=[STOP])(
        with_requests(lambda one: [one, later(one, 0.01)], PLAIN)(history)
    ),
    "sent again after its owner's death": lambda history: having(troubles=[DEATH])(
        with_requests(lambda one: [one, later(one, 9)], PLAIN)(history)
    ),
    "sent again since its answer was lost by a failure": lambda history: having(troubles=[RAISED])(SENT_AGAIN(history)),
    "sent again after a death before which the machine stalled": lambda history: having(
        troubles=[death_after(AT_ONCE_S + 3)], delays=[stalled_after(AT_ONCE_S, by_s=3)]
    )(SENT_AGAIN(history)),
    "signed with the older secret alone after a stall": lambda history: having(
        stalls=[Delay(ROTATED_S, ROTATED_S + 20, 20)]
    )(SIGNED_LATE(history)),
    "read after the deletion by a receiver that was stalled": lambda history: having(
        endpoints=[
            replace(one, deleted_s=first_at(history, DELETED.path) - 3) if one.path == DELETED.path else one
            for one in ENDPOINTS
        ],
        stalls=[Delay(first_at(history, DELETED.path) - 2.5, ENDED_S, ENDED_S)],
    )(history),
    "slow beside a dead endpoint while the machine stalled": lambda history: having(
        stalls=[Delay(one.began_s - 1.9, one.began_s, 1.9) for one in of(slow_beside_the_dead(history)).received]
    )(slow_beside_the_dead(history)),
    "tried until it was accepted": with_requests(
        lambda one: [replace(one, accepted=False), later(one, 0.1, accepted=False), later(one, 0.2)], PLAIN
    ),
    "signed with both secrets": request(AT_ROTATED, signed_by=(0, 1)),
    "signed with the older secret alone for a moment": with_requests(
        lambda one: [replace(later(one, ROTATED_S + 1 - STARTED_S), signed_by=(0,))],
        AT_ROTATED,
    ),
}


@pytest.mark.parametrize("spoil", EXCUSED.values(), ids=EXCUSED)
def test_what_may_happen_is_no_violation(spoil: Spoil) -> None:
    assert check(spoil(with_webhooks())).violations == []


def test_a_death_does_not_excuse_two_requests_at_once() -> None:
    spoil = with_requests(lambda one: [replace(one, accepted=False), later(one, 0.01)], PLAIN)
    verdict = check(having(troubles=[DEATH])(spoil(with_webhooks())))
    assert {violation.invariant for violation in verdict.violations} == {"I14"}


def test_types_are_named_as_the_product_names_them() -> None:
    """The two were written apart; where they differ, one of them is wrong."""
    for words in (
        ("claimed", "success"),
        ("claimed", "declined"),
        ("claimed", "unavailable", "claimed", "spent", "retried"),
        ("claimed", "unknown", "claimed", "pending:1:requires_action", "claimed", "pending"),
        ("claimed", "spent", "late_result:1:needs_review"),
        ("claimed", "success", "late_result:1"),
        ("canceled",),
    ):
        events = story("x", *words).events
        told = {change.version: type_ for change, type_ in reported(events)}
        assert told == {
            event.version: type_ for event in events if (type_ := type_of_change(event.event, event.status)) is not None
        }
    late = story("x", "claimed", "needs_review", "late_result:1").events[-1]
    assert type_of(late, Status.NEEDS_REVIEW) == "payment.late_result"


@pytest.mark.parametrize("types", [("payment.*",), ("payment.failed",), ("*",), ("payment.failed", "payment.canceled")])
def test_subscriptions_are_read_as_the_product_reads_them(types: tuple[str, ...]) -> None:
    endpoint = replace(ALL, types=types)
    for type_ in EventType:
        if not type_.is_of_endpoint:
            assert endpoint.subscribes(type_) == matches(types, type_), type_


def test_the_signatures_of_the_journal_are_verified_with_every_secret(tmp_path: Path) -> None:
    old, new = (f"whsec_{letter * 40}" for letter in "AB")
    endpoint = replace(ALL, secrets=tuple(Secret(text=text, asked_s=0.0, known_s=0.0) for text in (old, new)))
    body = json.dumps(
        {
            "id": "evt_1_2",
            "type": "payment.failed",
            "account": "default",
            "data": {"payment": {"id": "1", "version": 2}},
        }
    )
    at = datetime.fromtimestamp(1_800_000_000, UTC)
    journal = ReceiverJournal(tmp_path / "journal", life="a", born_s=0.0)
    for signatures in (
        Webhook(new).sign("evt_1_2", at, body),
        f"{Webhook(new).sign('evt_1_2', at, body)} {Webhook(old).sign('evt_1_2', at, body)}",
        f"v1a,AAAA {Webhook(old).sign('evt_1_2', at, body)}",
        Webhook(new).sign("evt_1_3", at, body),
    ):
        headers = {"webhook-id": "evt_1_2", "webhook-timestamp": "1800000000", "webhook-signature": signatures}
        journal.end(
            journal.begin(path=ALL.path, headers=headers, body=body, began_s=1_800_000_001.0), status=200, at_s=2.0
        )
    journal.end(journal.begin(path=ALL.path, headers={}, body=body, began_s=1.0), status=200, at_s=2.0)
    journal.close()
    found = read_received(tmp_path / "journal", [endpoint])
    assert [one.signed_by for one in found] == [(1,), (0, 1), (0,), (), ()]
    assert [bool(one.broken) for one in found] == [False] * 4 + [True]
    assert (found[0].payment_id, found[0].version, found[0].skew_s) == ("1", 2, -1.0)


def test_only_what_concerns_deliveries_excuses_a_repeat() -> None:
    tally = Tally()
    for fault, touched in (
        ("stop_dispatcher", "dispatcher-1"),
        ("blackhole", "dispatcher-2>postgres"),
        ("blackhole", "worker-1>postgres"),
        ("stop_postgres", "postgres"),
        ("receiver_refuses", "receiver"),
        ("receiver_silent", "receiver"),
        ("failpoint_kill", "dispatcher-1"),
    ):
        tally.times.append(FaultTime(fault=fault, touched=frozenset({touched}), since_s=1.0, until_s=2.0))
    tally.endings += [
        Ending(process="dispatcher-1", alive_s=5.0, gone_s=5.5, code=-9),
        Ending(process="dispatcher-2", alive_s=6.0, gone_s=6.5, code=0),  # drained: it has lost nothing
        Ending(process="worker-1", alive_s=7.0, gone_s=7.5, code=-9),
    ]
    tally.strikes += [
        Strike(process=process, action=action, since_s=since_s, until_s=since_s + 1)
        for process, action, since_s in (
            ("dispatcher-1", "stop", 10.0),
            ("worker-1", "stop", 11.0),
            ("dispatcher-1", "raise", 12.0),
            ("dispatcher-1", "delay", 13.0),
            ("dispatcher-1", "kill", 14.0),
        )
    ]
    tally.stalls.append(Stall(20.0, 22.0))
    shape = Shape.of(TortureOptions(dispatchers=2))
    found = troubles(tally, shape)
    assert {(one.what, one.since_s, one.until_s, one.cuts_off, one.most) for one in found} == {
        ("stop_dispatcher", 1.0, 5.0, True, None),
        ("blackhole", 1.0, 5.0, True, None),
        ("stop_postgres", 1.0, 5.0, True, None),
        ("receiver_silent", 1.0, 5.0, False, None),
        ("death of dispatcher-1", 5.0, 5.5, False, None),
        ("failpoint in dispatcher-1", 10.0, 14.0, True, None),
        ("failpoint in dispatcher-1", 12.0, 13.0, False, 1),
    }
    assert len(found) == 7
    assert stalls(tally) == [Delay(20.0, 22.0, 2.0)]
    assert delays(tally, shape) == [Delay(20.0, 22.0, 2.0), Delay(13.0, 14.0, DELAY_S)]
