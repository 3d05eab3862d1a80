"""The timeline of a payment, over generated histories."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from okane.console.timeline import build_timeline
from okane.operation import Operation, OperationStatus
from okane.payment import Status
from okane.store import Event
from okane.store.operation_records import OperationEvent
from okane.store.payment_details import Notice, PaymentDelivery
from okane.store.webhook_deliveries import Delivery
from tests.operations import OPERATION

ID, ENDPOINT = UUID(int=1), UUID(int=2)
START = datetime(2026, 11, 30, 8, tzinfo=UTC)
NAMES = (
    "claimed",
    "success",
    "unavailable",
    "declined",
    "spent",
    "unknown",
    "pending",
    "deferred",
    "fell_back",
    "late_result",
    "retried",
    "canceled",
    "resolved",
    "needs_review",
    "unanswered",
    "dispute_opened",
    "capture_requested",
    "captured",
    "void_failed",
    "refund_requested",
    "refund_failed",
    "an event of a later version",
)


def after(ms: int) -> datetime:
    return START + timedelta(milliseconds=ms)


def event(version: int, name: str, at_ms: int, *, attempt: int = 1) -> Event:
    return Event(ID, version, after(at_ms), name, Status.PENDING, attempt, "worker-1", None, "http", 3)


def delivery(version: int, position: int, at_ms: int) -> PaymentDelivery:
    sent = Delivery(
        endpoint_id=ENDPOINT,
        position=position,
        state="delivered",
        attempts=1,
        status=200,
        ms=5,
        reason=None,
        at=after(at_ms),
        next_at=None,
        earlier=None,
    )
    return PaymentDelivery(version, "payment.succeeded", "https://example.test/hook", sent)


def histories() -> st.SearchStrategy[Sequence[Event]]:
    """Histories in the order of their versions. Their times jump back now and then, as those of transactions do."""
    rest = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(-50, 5_000)), max_size=30)
    return rest.map(_history)


def _history(steps: Sequence[tuple[str, int]]) -> Sequence[Event]:
    at_ms, events = 0, [event(0, "accepted", 0)]
    for version, (name, step_ms) in enumerate(steps, 1):
        at_ms += step_ms
        events.append(event(version, name, at_ms))
    return events


MOMENTS = st.integers(-1_000, 100_000)


@given(
    histories(),
    st.lists(st.tuples(st.integers(0, 40), MOMENTS), max_size=10),
    st.lists(MOMENTS, max_size=5),
)
def test_each_event_is_one_line_in_the_order_of_the_versions(
    events: Sequence[Event], delivered: Sequence[tuple[int, int]], noticed: Sequence[int]
) -> None:
    deliveries = [delivery(version, position, at_ms) for position, (version, at_ms) in enumerate(delivered)]
    notices = [Notice("stripe", str(number), "charge", after(at_ms), None) for number, at_ms in enumerate(noticed)]
    lines = build_timeline(events, deliveries, notices)
    assert [line.event for line in lines if line.event is not None] == list(events)
    shown = [line.delivery for line in lines if line.delivery is not None]
    assert sorted(shown, key=lambda one: one.delivery.position) == deliveries
    assert len([line for line in lines if line.notice is not None]) == len(notices)
    assert len({line.key for line in lines}) == len(lines) == len(events) + len(deliveries) + len(notices)
    assert [number for number, line in enumerate(lines) if line.since is None] == [0]
    assert all(line.since >= timedelta(0) for line in lines if line.since is not None)


@given(histories(), st.lists(st.tuples(st.integers(0, 30), MOMENTS), max_size=10))
def test_a_delivery_comes_after_the_event_that_it_is_about(
    events: Sequence[Event], delivered: Sequence[tuple[int, int]]
) -> None:
    deliveries = [delivery(version, position, at_ms) for position, (version, at_ms) in enumerate(delivered)]
    seen: set[int] = set()
    for line in build_timeline(events, deliveries):
        if line.event is not None:
            seen.add(line.event.version)
        elif line.delivery is not None and line.delivery.version < len(events):
            assert line.delivery.version in seen


@given(histories())
def test_the_times_between_the_lines_add_up_while_no_clock_goes_back(events: Sequence[Event]) -> None:
    in_order = [event(one.version, one.event, number * 7) for number, one in enumerate(events)]
    lines = build_timeline(in_order)
    total = sum((line.since for line in lines if line.since is not None), timedelta(0))
    assert total == lines[-1].at - lines[0].at


def test_a_claim_that_takes_a_payment_over_says_that_the_attempt_before_wrote_no_result() -> None:
    names = ("claimed", "late_result", "claimed", "unavailable", "claimed")
    events = [event(0, "accepted", 0), *(event(n, name, n) for n, name in enumerate(names, 1))]
    assert [line.lost for line in build_timeline(events)] == [False, False, False, True, False, False]


def test_every_line_says_what_kind_of_line_it_is() -> None:
    events = _history([(name, 1) for name in NAMES])
    kinds = {line.event.event: line.kind for line in build_timeline(events) if line.event is not None}
    assert kinds["accepted"] == "accepted"
    assert kinds["claimed"] == "claimed"
    assert kinds["late_result"] == "late"
    assert {kinds[name] for name in ("retried", "canceled", "resolved")} == {"action"}
    assert {kinds[name] for name in ("success", "declined", "unanswered", "an event of a later version")} == {"result"}


def test_lines_are_in_the_order_of_time() -> None:
    events = [event(0, "accepted", 0), event(1, "claimed", 20), event(2, "success", 40)]
    lines = build_timeline(events, [delivery(2, 9, 45)], [Notice("stripe", "evt", "charge", after(30), after(31))])
    assert [line.kind for line in lines] == ["accepted", "claimed", "notice", "result", "delivery"]
    spans = [line.since for line in itertools.islice(lines, 1, None)]
    assert spans == [timedelta(milliseconds=span) for span in (20, 10, 10, 5)]


def test_a_dispute_is_a_line_and_hides_no_lost_attempt() -> None:
    history = [event(0, "accepted", 0), event(1, "claimed", 1), event(2, "dispute_opened", 2), event(3, "claimed", 3)]
    lines = build_timeline(history)
    assert [line.tone for line in lines] == ["", "", "warn", ""]
    assert lines[3].lost


def step(operation: Operation, version: int, name: str, at_ms: int) -> OperationEvent:
    status = OperationStatus.PENDING
    return OperationEvent(operation.id, version, after(at_ms), name, status, 1, "worker-1", None, "http", 3)


@given(histories(), st.lists(st.tuples(st.booleans(), MOMENTS), max_size=10))
def test_a_step_is_a_line_unless_it_changed_the_payment_too(
    events: Sequence[Event], steps: Sequence[tuple[bool, int]]
) -> None:
    """Those that changed it have the time of an event of the payment that names their operation."""
    operations = [replace(OPERATION, id=UUID(int=100 + number)) for number in range(len(steps))]
    shared = {
        number: one
        for number, (is_shared, _) in enumerate(steps)
        if is_shared
        for one in events[number + 1 : number + 2]
    }
    named = {one.version: operations[number].id for number, one in shared.items()}
    events = [replace(one, operation_id=named.get(one.version)) for one in events]
    made = [step(operations[number], 1, "claimed", at_ms) for number, (_, at_ms) in enumerate(steps)]
    made = [replace(one, at=shared[number].at) if number in shared else one for number, one in enumerate(made)]
    lines = build_timeline(events, operations=operations, steps=made)
    assert [line.event for line in lines if line.event is not None] == events
    assert {line.event.version for line in lines if line.event is not None and line.step is not None} == named.keys()
    assert sorted(line.step.operation_id.int for line in lines if line.step is not None) == [
        one.id.int for one in operations
    ]
    assert len({line.key for line in lines}) == len(lines) == len(events) + len(made) - len(named)
