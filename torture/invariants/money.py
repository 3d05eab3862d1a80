"""The provider's charges against Postgres: I2, I3, I4 (charges and statuses) and I9 (calls and claims)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from okane.payment import CLOSED_UNCHARGED, Status
from torture.history.journals import Charge, EventRow, History, PaymentRow
from torture.invariants.violation import Violation

# Both clocks are the machine's own; this is for a clock that is being set.
_CLOCKS_DIFFER_S = 0.1


def charged_once_at_most(history: History) -> Sequence[Violation]:
    """I2: at most one captured charge per payment at one provider. Two of them are I20's."""
    found = []
    for payment_id, charges in captured(history).items():
        most = max(Counter(charge.provider for charge in charges).values())
        if most > 1:
            found.append(Violation("I2", payment_id, f"charged {most} times", repr(charges)))
    return found


def success_means_charged(history: History) -> Sequence[Violation]:
    """I3: `success` if and only if there is a charge, of the same amount and currency. How many there are is I2's."""
    charged = captured(history)
    found = [
        Violation("I3", row.id, "success without a charge", repr(row))
        for row in history.rows.values()
        if row.status is Status.SUCCESS and row.id not in charged
    ]
    for payment_id, charges in charged.items():
        row = history.rows.get(payment_id)
        if row is None:
            found.append(Violation("I3", payment_id, "charged without a payment", repr(charges)))
        elif row.status not in CLOSED_UNCHARGED and any(_differs(charge, row) for charge in charges):
            found.append(Violation("I3", payment_id, "charged another amount", f"{charges} for {row}"))
    if history.provider.conflicts:
        what = "a key was used for another payment or amount"
        found.append(Violation("I3", "provider", what, f"{history.provider.conflicts} such calls"))
    return found


def failure_means_not_charged(history: History) -> Sequence[Violation]:
    """I4: no charge for what is `failed_final` or `canceled`. (Money in doubt is `needs_review`, as is what came late.)"""
    found = []
    for payment_id, charges in captured(history).items():
        row = history.rows.get(payment_id)
        if row is not None and row.status in CLOSED_UNCHARGED:
            found.append(Violation("I4", payment_id, f"charged although {row.status}", repr(charges)))
    return found


def calls_follow_claims(history: History) -> Sequence[Violation]:
    """I9: every provider call was preceded by a committed claim, and went out under the key that the claim fixed."""
    calls: dict[str, list[Charge]] = {}
    for call in history.charges:
        calls.setdefault(call.payment_id, []).append(call)
    found = []
    for payment_id, made in calls.items():
        row = history.rows.get(payment_id)
        if row is None:
            continue  # I3's
        events = history.events.get(payment_id, ())
        made.sort(key=lambda call: call.at_s)
        wrong = _unclaimed(made, events) or _wrong_key(made, events, row)
        if wrong is not None:
            found.append(Violation("I9", payment_id, wrong, f"{made}, {events}"))
    claims = sum(line.event == "claimed" for events in history.events.values() for line in events)
    if history.provider.calls > claims:
        evidence = f"{history.provider.calls} calls, {claims} claims"
        found.append(Violation("I9", "provider", "more calls than claims", evidence))
    return found


def captured(history: History) -> Mapping[str, Sequence[Charge]]:
    """The charges that moved money, by payment."""
    charges: dict[str, list[Charge]] = {}
    for charge in history.charges:
        if charge.captured:
            charges.setdefault(charge.payment_id, []).append(charge)
    return charges


def _unclaimed(calls: Sequence[Charge], events: Sequence[EventRow]) -> str | None:
    """A claim allows one call: before the n-th call came the n-th claim, at least."""
    claims_s = sorted(line.at_s for line in events if line.event == "claimed")
    for number, call in enumerate(calls):
        if number >= len(claims_s):
            return f"{len(calls)} calls under {len(claims_s)} claims"
        if claims_s[number] > call.at_s + _CLOCKS_DIFFER_S:
            return f"called {claims_s[number] - call.at_s:.3f} s before it was claimed"
    return None


def _wrong_key(calls: Sequence[Charge], events: Sequence[EventRow], row: PaymentRow) -> str | None:
    """Return a call whose key changed without a manual retry, or None."""
    if any(line.event == "retried" for line in events):
        return None
    return next(
        (f"called as {call.key!r}, not {row.provider_key!r}" for call in calls if call.key != row.provider_key), None
    )


def _differs(charge: Charge, row: PaymentRow) -> bool:
    return (charge.amount_minor, charge.currency) != (row.amount_minor, row.currency)
