"""The providers of a payment: I20 (one of them charges), I23 (the pin), I24 (the switch), I25 (what burns a retry)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from okane.payment import AWAITING_PROVIDER, Status
from torture.history.journals import EventRow, History, SwitchedTime
from torture.invariants.money import captured
from torture.invariants.pins import providers_by_attempt, stray
from torture.invariants.violation import Violation

_OPEN = frozenset({Status.PROCESSING, Status.UNKNOWN, *AWAITING_PROVIDER})


def charged_by_one_provider(history: History) -> Sequence[Violation]:
    """I20: at most one provider has charged a payment. How often one provider has is I2's."""
    found = []
    for payment_id, charges in captured(history).items():
        names = sorted({charge.provider for charge in charges})
        if len(names) > 1:
            found.append(Violation("I20", payment_id, f"charged by {' and '.join(names)}", repr(charges)))
    return found


def pinned_payments_stay(history: History) -> Sequence[Violation]:
    """I23: from its pin on, a payment's events name one provider; every outcome names the provider of its claim."""
    found = []
    for payment_id, events in history.events.items():
        line = stray(events)
        if line is not None:
            what = f"{line.event!r} of attempt {line.attempt} names {line.provider}"
            found.append(Violation("I23", payment_id, what, repr(events)))
    return found


def switched_off_is_not_charged(history: History) -> Sequence[Violation]:
    """I24: while a provider is switched off no claim names it, and while it is drained none but for a look-up."""
    found = []
    for time in history.switched:
        for payment_id, events in history.events.items():
            for line in _forbidden(events, time):
                what = f"claimed for {time.provider}, which was switched to {time.mode}"
                found.append(Violation("I24", payment_id, what, f"{line}, {time}"))
    return found


def only_failures_burn_retries(history: History) -> Sequence[Violation]:
    """I25: a payment counts the failures of its provider, and its crashes, since its last manual retry, and nothing else."""
    return [
        Violation("I25", row.id, f"counts {row.retries} retries, its events {burned}", repr(history.events.get(row.id)))
        for row in history.rows.values()
        if row.retries != (burned := _burned(history.events.get(row.id, ())))
    ]


def _forbidden(events: Sequence[EventRow], time: SwitchedTime) -> Iterator[EventRow]:
    providers, status = providers_by_attempt(events), Status.PENDING
    for line in events:
        named = providers.get(line.attempt)
        if line.event == "claimed" and named == time.provider and time.since_s < line.at_s < time.until_s:
            looks_up = time.mode == "drain" and status in _OPEN
            if not looks_up:
                yield line
        status = line.status


def _burned(events: Sequence[EventRow]) -> int:
    burned, status = 0, Status.PENDING
    for line in events:
        if line.event == "retried":
            burned = 0
        burned += line.event == "unavailable" or (line.event == "claimed" and status is Status.PROCESSING)
        status = line.status
    return burned
