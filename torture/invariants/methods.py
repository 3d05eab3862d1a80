"""Saved payment methods: I35 (which payments a method takes), I36 (whose token a payment is charged with)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from torture.history.journals import History
from torture.history.methods import MethodCharge, MethodPayment, SavedMethod
from torture.invariants.violation import Violation

PLAIN_TOKEN = "pm_card_torture"  # noqa: S105 - of payments without a saved method
_UNUSABLE = 422


def methods_take_payments(history: History) -> Sequence[Violation]:
    """I35: one key makes one method. It takes payments until its deletion is asked for, and no new ones once that was
    acknowledged; a payment that it has taken is not refused when its request is repeated."""
    found = [
        Violation("I35", one.key, "its key led to several methods", repr(one))
        for one in history.methods.methods.values()
        if len(set(one.ids)) > 1
    ]
    for key, tries in _by_key(history).items():
        method = history.methods.methods[tries[0].method_key]
        found.extend(Violation("I35", key, wrong, f"{method}, {tries}") for wrong in _wrong_answers(method, tries))
    return found


def tokens_are_charged(history: History) -> Sequence[Violation]:
    """I36: a payment is charged with the token of its method at that provider, for its customer, and as present or not."""
    found = []
    named = _payments(history)
    for charge in history.methods.charges:
        wrong = _wrong_token(charge, named.get(charge.payment_id), history.methods.methods)
        if wrong is not None:
            found.append(Violation("I36", charge.payment_id, wrong, f"{charge}, {named.get(charge.payment_id)}"))
    for one in history.charges:
        payment = named.get(one.payment_id)
        if payment is not None and one.provider not in history.methods.methods[payment.method_key].providers:
            what = f"charged by {one.provider}, where its method has no token"
            found.append(Violation("I36", one.payment_id, what, f"{one}, {payment}"))
    return found


def count_saved_tokens(history: History) -> int:
    """Return the number of the gateway's charges with the token of a saved method."""
    return sum(one.token != PLAIN_TOKEN for one in history.methods.charges)


def _wrong_answers(method: SavedMethod, tries: Sequence[MethodPayment]) -> Iterator[str]:
    requests = [one.request for one in tries]
    taken_s = [one.answered_s for one in requests if one.acknowledged]
    first_s = min(one.sent_s for one in requests)
    if taken_s and method.deleted_s is not None and first_s > method.deleted_s:
        yield "took a new payment after its deletion was acknowledged"
    for one in requests:
        if one.status != _UNUSABLE:
            continue
        if method.asked_s is None or one.answered_s < method.asked_s:
            yield "refused a payment before its deletion"
        elif taken_s and min(taken_s) < one.sent_s:
            yield "refused the repeat of a payment that it had taken"


def _wrong_token(charge: MethodCharge, payment: MethodPayment | None, methods: Mapping[str, SavedMethod]) -> str | None:
    if payment is None:
        return None if charge.token == PLAIN_TOKEN else "charged with a saved token, and names no saved method"
    method = methods[payment.method_key]
    if (charge.customer, charge.token) != (method.customer, method.token):
        return "charged with another token than its method's"
    if charge.off_session is payment.is_present:
        return f"charged as {'absent' if charge.off_session else 'present'}, and the customer was not"
    return None


def _by_key(history: History) -> Mapping[str, Sequence[MethodPayment]]:
    found: dict[str, list[MethodPayment]] = defaultdict(list)
    for one in history.methods.payments:
        found[one.request.key].append(one)
    return found


def _payments(history: History) -> Mapping[str, MethodPayment]:
    """Return the payments with saved methods, by their ids: the row of a payment knows the key of its request."""
    by_key = {key: tries[0] for key, tries in _by_key(history).items()}
    return {row.id: by_key[row.key] for row in history.rows.values() if row.key in by_key}
