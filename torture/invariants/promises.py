"""The answers to clients against Postgres: I1 (nothing acknowledged is lost) and I7 (one key, one payment)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torture.history.journals import History, Observation, PaymentRow, Request
from torture.invariants.violation import Violation

Meaning = tuple[int, str]

_LATER = frozenset({408, 429})  # refusals that say nothing about the request


def acknowledged_payments_exist(history: History) -> Sequence[Violation]:
    """I1: every 2xx-acknowledged payment exists, with the same amount and currency."""
    promised: dict[str, set[Meaning]] = {}
    found: list[Violation] = []
    for request in history.requests:
        if not request.acknowledged:
            continue
        if request.payment_id is None:
            found.append(Violation("I1", request.key, "acknowledged without a payment", repr(request)))
        else:
            promised.setdefault(request.payment_id, set()).add(_meaning(request))
    for payment_id, meanings in promised.items():
        row = history.rows.get(payment_id)
        if row is None:
            found.append(Violation("I1", payment_id, "acknowledged and not there", f"acknowledged as {meanings}"))
        elif _meaning(row) not in meanings:  # several meanings under one key are I7's
            found.append(Violation("I1", payment_id, "not what was acknowledged", f"{meanings} became {row}"))
    found.extend(_wrongly_shown(history))
    return found


def one_key_is_one_payment(history: History) -> Sequence[Violation]:
    """I7: the same key leads to the same payment, in parallel to one row, and with another meaning to 422."""
    meanings = _meanings_by_key(history)
    ids: dict[str, str] = {}
    created: set[str] = set()
    found = list(_doubled_rows(history))
    for request in history.requests:
        key, payment_id = request.key, request.payment_id
        wrong = _wrong_answer(request, meanings.get(key))
        if request.acknowledged and payment_id is not None:
            row = history.rows.get(payment_id)
            if ids.setdefault(key, payment_id) != payment_id:
                wrong = f"the key led to another payment before, {ids[key]}"
            elif row is not None and row.key != key:
                wrong = f"answered with the payment of another key, {row.key!r}"
            elif request.created and key in created:
                wrong = "created a second time"
            if request.created:
                created.add(key)
        if wrong is not None:
            found.append(Violation("I7", key, wrong, repr(request)))
    return found


def _wrong_answer(request: Request, meaning: Meaning | None) -> str | None:
    """Return the fault of an answer about the payment of this key, given the meaning of the key, or None."""
    if meaning is None:
        return None
    if _meaning(request) == meaning:
        return "a repeat of the same request was refused" if request.status == 422 else None
    if request.acknowledged:
        return f"the key was taken for another meaning than {meaning}"
    refused = 400 <= request.status < 500 and request.status not in _LATER
    return "another meaning was not refused with 422" if refused and request.status != 422 else None


def _meanings_by_key(history: History) -> Mapping[str, Meaning]:
    """Return the meaning of each key: that of its first acceptance by the clients' journal, else by the row.

    Clients use one account, so that a key is a key.
    """
    meanings = {row.key: _meaning(row) for row in history.rows.values()}
    told: dict[str, Meaning] = {}
    for request in history.requests:
        if request.created:
            told[request.key] = _meaning(request)
        elif request.acknowledged:
            told.setdefault(request.key, _meaning(request))
    return meanings | told


def _doubled_rows(history: History) -> Iterator[Violation]:
    rows: dict[tuple[str, str], PaymentRow] = {}
    for row in history.rows.values():
        other = rows.setdefault((row.account_id, row.key), row)
        if other is not row:
            yield Violation("I7", row.key, "two rows have the key", f"{other} and {row}")


def _wrongly_shown(history: History) -> Iterator[Violation]:
    for seen in history.observations:
        row = history.rows.get(seen.payment_id)
        if seen.http_status == 404:
            yield Violation("I1", seen.payment_id, "acknowledged and not shown", repr(seen))
        elif row is not None and seen.http_status == 200 and _shown(seen) != _meaning(row):
            yield Violation("I1", seen.payment_id, "shown as another payment", f"{seen} of {row}")


def _meaning(of: Request | PaymentRow) -> Meaning:
    return of.amount_minor, of.currency


def _shown(seen: Observation) -> tuple[int | None, str | None]:
    return seen.amount_minor, seen.currency
