"""The routes of new payments: I39. (That a payment in doubt stays with its provider is I23's.)"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

from torture.history.journals import EventRow, History, PaymentRow
from torture.history.routes import RouteChange, Rule
from torture.invariants.violation import Violation

# An API takes a changed file within seconds, and later if it is stopped, or the machine stalls.
_TAKEN_S = 15.0
_ACCEPTED_S = 5.0  # between the choice and the row


def payments_keep_their_routes(history: History) -> Sequence[Violation]:
    """I39: a payment's candidates are those of the rules at its acceptance, or of its request, and no other one is called,
    whatever the rules are later."""
    saved = {one.request.key for one in history.methods.payments}
    found = []
    for row in history.rows.values():
        wrong = _wrong_candidates(row, history.routes) if row.key not in saved else None
        wrong = wrong or _wrong_call(row, history.events.get(row.id, ()))
        if wrong is not None:
            found.append(Violation("I39", row.id, wrong, f"{row}, {history.events.get(row.id, ())}"))
    return found


def count_routed(history: History) -> int:
    """Return the number of payments that a rule has led."""
    return sum(row.candidates is not None for row in history.rows.values()) if history.routes else 0


def _wrong_candidates(row: PaymentRow, changes: Sequence[RouteChange]) -> str | None:
    if not changes:
        return None
    if row.requested_provider is not None:
        return None if row.candidates is None else "has candidates beside the provider of its request"
    if any(_may_lead(rules, row) for rules in _in_force(changes, row.created_at_s)):
        return None
    return f"has the candidates {row.candidates}, which no rule of that time gives it"


def _in_force(changes: Sequence[RouteChange], at_s: float) -> Iterator[Sequence[Rule]]:
    """Yield the rules by which a payment that was accepted then may have been led."""
    for number, change in enumerate(changes):
        replaced_s = changes[number + 1].at_s if number + 1 < len(changes) else float("inf")
        if change.at_s <= at_s + 1.0 and at_s - _ACCEPTED_S < replaced_s + _TAKEN_S:
            yield change.rules


def _may_lead(rules: Sequence[Rule], row: PaymentRow) -> bool:
    rule = next((one for one in rules if one.matches(row.amount_minor, row.currency)), None)
    if rule is None or row.candidates is None:
        return rule is None and row.candidates is None
    return rule.may_choose(row.candidates)


def _wrong_call(row: PaymentRow, events: Sequence[EventRow]) -> str | None:
    allowed: Container[str] | None = row.candidates if row.requested_provider is None else [row.requested_provider]
    if allowed is None:
        return None
    return next(
        (
            f"{line.event} at {line.provider}, which is none of {allowed}"
            for line in events
            if line.provider is not None and line.provider not in allowed
        ),
        None,
    )
