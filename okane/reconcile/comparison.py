"""The comparison of one record of a provider with what is here. Pure.

A record and a row belong together by our id, which the provider keeps with the record: neither times nor amounts pair them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal
from uuid import UUID

from okane.providers.listing import ProviderRecord, RecordStatus
from okane.store.movements import BookedOperation, BookedPayment
from streams.values import value

DifferenceKind = Literal["missing_here", "missing_there", "amount", "currency", "status"]
KINDS: tuple[DifferenceKind, ...] = ("missing_here", "missing_there", "amount", "currency", "status")


@value
class Difference:
    """One difference: what is `here` and what is `there`, as texts. `of` is the kind of movement or record."""

    kind: DifferenceKind
    of: str
    here: str
    there: str
    payment_id: UUID | None = None
    operation_id: UUID | None = None
    provider_ref: str | None = None


_NOT_AT_REST = frozenset({"pending", "processing", "failed_retryable", "unknown", "needs_review"})
_WAITING = _NOT_AT_REST | {"submitted", "requires_action"}

# The statuses of a payment that agree with a charge's there. Money that moves later is no difference while we wait for it.
_OF_CHARGES: Mapping[RecordStatus, frozenset[str]] = {
    "succeeded": frozenset({"success"}),
    "authorized": frozenset({"authorized"}),
    "pending": _WAITING,
    "canceled": frozenset({"canceled", "failed_final"}),
    "failed": _WAITING | {"canceled", "failed_final"},
}
_OF_OPERATIONS: Mapping[RecordStatus, frozenset[str]] = {
    "succeeded": frozenset({"success"}),
    "authorized": frozenset(),
    "pending": _WAITING,
    "canceled": frozenset({"canceled", "failed_final"}),
    "failed": frozenset({"canceled", "failed_final"}),
}


def compare_charge(record: ProviderRecord, booked: BookedPayment | None, *, provider: str) -> Iterator[Difference]:
    """Yield the differences between a charge there and the payment that it names, None if there is no such payment."""
    there = f"{record.status} {_money(record.amount_minor, record.currency)}"
    if booked is None:
        yield _difference("missing_here", record, "no payment" if record.payment_id else "no payment is named", there)
        return
    names = {booked.provider_ref, booked.attempt_ref} - {None}
    is_other = booked.provider not in (None, provider) or (bool(names) and record.provider_ref not in names)
    if is_other and record.status == "canceled":
        return  # an attempt that was given up before another one
    if is_other:
        mine = ", ".join(sorted(name for name in names if name)) or "none"
        yield _difference("missing_here", record, f"the payment's charge is {mine} at {booked.provider}", there)
        return
    if record.currency != booked.currency:
        yield _difference("currency", record, booked.currency, record.currency)
    elif record.amount_minor != booked.amount_minor:
        yield _amount(record, booked.amount_minor, record.amount_minor)
    elif record.captured_minor is not None and booked.status == "success":
        captured = booked.amount_minor if booked.amount_captured is None else booked.amount_captured
        if record.captured_minor != captured:
            yield _amount(record, captured, record.captured_minor)
    if booked.status not in _OF_CHARGES[record.status]:
        yield _difference("status", record, booked.status, record.status)


def compare_operation(record: ProviderRecord, booked: BookedOperation | None, *, provider: str) -> Iterator[Difference]:
    """Yield the differences between a capture or refund there and the operation that it names, None if there is none."""
    there = f"{record.status} {_money(record.amount_minor, record.currency)}"
    if booked is None:
        here = f"no {record.kind}" if record.operation_id else f"no {record.kind} is named"
        yield _difference("missing_here", record, here, there)
        return
    is_other = (booked.kind, booked.provider) != (record.kind, provider)
    is_other = is_other or booked.provider_ref not in (None, record.provider_ref)
    if is_other and record.status in ("canceled", "failed"):
        return  # an attempt before a retry under another key
    if is_other:
        here = f"the operation is the {booked.kind} {booked.provider_ref} at {booked.provider}"
        yield _difference("missing_here", record, here, there)
        return
    if record.currency != booked.currency:
        yield _difference("currency", record, booked.currency, record.currency)
    elif record.amount_minor != booked.amount_minor:
        yield _amount(record, booked.amount_minor, record.amount_minor)
    if booked.status not in _OF_OPERATIONS[record.status]:
        yield _difference("status", record, booked.status, record.status)


def is_under_way(status: str) -> bool:
    """Return True for a status that okane itself is about to change."""
    return status in _WAITING - {"needs_review"}


def _amount(record: ProviderRecord, here: int, there: int) -> Difference:
    return _difference("amount", record, _money(here, record.currency), _money(there, record.currency))


def _difference(kind: DifferenceKind, record: ProviderRecord, here: str, there: str) -> Difference:
    return Difference(
        kind,
        record.kind,
        here,
        there,
        payment_id=record.payment_id,
        operation_id=record.operation_id,
        provider_ref=record.provider_ref,
    )


def _money(amount_minor: int, currency: str) -> str:
    return f"{amount_minor:,} {currency}"
