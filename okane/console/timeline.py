"""The timeline of one payment: its events, the steps of its operations, and the webhooks and notices about it, as lines in
their order. Pure.

Guarantee: each event is one line, in the order of the versions; a delivery comes after the event that it is about. A step
that changed the payment, too, is on the line of that event.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from okane.operation import Operation
from okane.store import Event
from okane.store.operation_records import OperationEvent
from okane.store.payment_details import Notice, PaymentDelivery
from okane.store.webhook_deliveries import DeliveryState

LineKind = Literal["accepted", "claimed", "result", "action", "late", "delivery", "notice", "step"]
Tone = Literal["good", "bad", "warn", ""]

_ACTIONS = frozenset(
    {
        "retried",
        "canceled",
        "resolved",
        "capture_requested",
        "void_requested",
        "refund_requested",
        "refund_canceled",
    }
)
_TONES: dict[str, Tone] = {
    "success": "good",
    "captured": "good",
    "refunded": "good",
    "capture_failed": "bad",
    "void_failed": "bad",
    "refund_failed": "bad",
    "declined": "bad",
    "spent": "bad",
    "unavailable": "warn",
    "unknown": "warn",
    "deferred": "warn",
    "fell_back": "warn",
    "needs_review": "warn",
    "late_result": "warn",
    "unanswered": "warn",
    "dispute_opened": "warn",
}
_BESIDE = frozenset({"late_result", "dispute_opened", "dispute_closed"})  # of no attempt that is under way
_DELIVERY_TONES: dict[DeliveryState, Tone] = {"delivered": "good", "given_up": "bad", "waiting": "warn"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line. `since` is the time since the line before, None in the first.

    One of `event`, `delivery` and `notice` is given, or `step` alone: an event of an operation. Beside an event of
    the payment, `step` is the same change of its operation. `operation` is as it is now, None if it is not among the newest.
    `lost`: the claim took the payment over from
    an attempt whose worker never wrote a result.
    """

    kind: LineKind
    at: datetime
    since: timedelta | None = None
    tone: Tone = ""
    event: Event | None = None
    delivery: PaymentDelivery | None = None
    notice: Notice | None = None
    lost: bool = False
    step: OperationEvent | None = None
    operation: Operation | None = None

    @property
    def key(self) -> str:
        """A text that no other line of the payment has, and that this one keeps."""
        if self.event is not None:
            return f"v{self.event.version}"
        if self.delivery is not None:
            return f"d{self.delivery.delivery.position}-{self.delivery.delivery.endpoint_id.hex}"
        if self.notice is not None:
            return f"n-{self.notice.provider}-{self.notice.event_id}"
        return "" if self.step is None else f"o-{self.step.operation_id.hex}-{self.step.version}"


def build_timeline(
    events: Sequence[Event],
    deliveries: Sequence[PaymentDelivery] = (),
    notices: Sequence[Notice] = (),
    operations: Sequence[Operation] = (),
    steps: Sequence[OperationEvent] = (),
) -> Sequence[Line]:
    """Return the lines, oldest first. Events are in the order of their versions. `steps` are the events of `operations`.

    Postgres gives an event the time at which its transaction began, which may be before that of the version before it: the
    order of the versions holds.
    """
    # One statement changes the operation and the payment, at one time.
    beside = {(step.operation_id, step.at): step for step in steps}
    named = {one.id: one for one in operations}
    placed = [*_placed_events(events, beside, named)]
    shown = {line.step for _, line in placed}
    for step in steps:
        if step not in shown:
            tone = _TONES.get(step.event, "")
            line = Line(kind="step", at=step.at, tone=tone, step=step, operation=named.get(step.operation_id))
            placed.append((step.at, line))
    reached = {line.event.version: moment for moment, line in placed if line.event is not None}
    first = placed[0][0] if placed else None
    for one in deliveries:
        about = reached.get(one.version, first)
        at = one.delivery.at
        tone = _DELIVERY_TONES[one.delivery.state]
        placed.append((at if about is None else max(at, about), Line(kind="delivery", at=at, tone=tone, delivery=one)))
    for notice in notices:
        placed.append((notice.received_at, Line(kind="notice", at=notice.received_at, notice=notice)))
    placed.sort(key=lambda one: one[0])  # stable: an event comes before what is about it
    return [*_spaced([line for _, line in placed])]


def _placed_events(
    events: Sequence[Event],
    beside: Mapping[tuple[UUID, datetime], OperationEvent],
    named: Mapping[UUID, Operation],
) -> Iterator[tuple[datetime, Line]]:
    """Yield each event with its place in time, which never goes back, and the step that is `beside` it."""
    place: datetime | None = None
    before: Event | None = None
    for event in events:
        place = event.at if place is None else max(place, event.at)
        lost = event.event == "claimed" and before is not None and before.event == "claimed"
        step = None if event.operation_id is None else beside.get((event.operation_id, event.at))
        tone = _TONES.get(event.event, "")
        operation = None if event.operation_id is None else named.get(event.operation_id)
        line = Line(kind=_kind(event), at=event.at, tone=tone, event=event, lost=lost, step=step, operation=operation)
        yield place, line
        if event.event not in _BESIDE:
            before = event


def _kind(event: Event) -> LineKind:
    match event.event:
        case "accepted":
            return "accepted"
        case "claimed":
            return "claimed"
        case "late_result":
            return "late"
        case action if action in _ACTIONS:
            return "action"
        case _:
            return "result"


def _spaced(lines: Sequence[Line]) -> Iterator[Line]:
    """Yield the lines with the time since the line before, never less than none."""
    before: Line | None = None
    for line in lines:
        since = None if before is None else max(line.at - before.at, timedelta(0))
        yield replace(line, since=since)
        before = line
