"""The capabilities of each kind of provider: known without an adapter, for the processes that make no calls."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import get_args

from okane.operation import NewOperation, Operation, OperationKind
from okane.payment import Payment
from okane.providers.base import Capability, Declined

Capabilities = Mapping[str, Collection[Capability]]  # of each provider, by its name
NO_CAPABILITIES: Capabilities = MappingProxyType({})

ALL: frozenset[Capability] = frozenset(get_args(Capability))
STRIPE = ALL
PAYU: frozenset[Capability] = frozenset({"refund", "partial_refund"})
# Of a point of sale whose orders wait to be captured (automatic collection is off), as a whole.
PAYU_BY_HAND: frozenset[Capability] = PAYU | {"manual_capture", "void"}


def lacking(capabilities: frozenset[Capability], kind: OperationKind, *, is_partial: bool = False) -> Capability | None:
    """Return the capability that an operation needs and the provider lacks, or None."""
    return next((one for one in _NEEDED[kind, is_partial] if one not in capabilities), None)


def lacking_for(new: NewOperation, payment: Payment, capabilities: frozenset[Capability]) -> Capability | None:
    """Return the capability that a requested operation of a payment needs and its provider lacks, or None."""
    whole = payment.amount_minor if new.kind is OperationKind.CAPTURE else payment.captured_minor
    is_partial = new.amount_minor is not None and new.amount_minor < whole
    return lacking(capabilities, new.kind, is_partial=is_partial)


def refused_operation(operation: Operation, payment: Payment, capabilities: frozenset[Capability]) -> Declined | None:
    """Return the decline of an operation that the provider cannot execute. Nothing is sent for it."""
    whole = payment.amount_minor if operation.kind is OperationKind.CAPTURE else payment.captured_minor
    lacks = lacking(capabilities, operation.kind, is_partial=operation.amount_minor < whole)
    return None if lacks is None else Declined("unsupported_operation", f"{operation.provider} has no {lacks}")


def refused_charge(payment: Payment, capabilities: frozenset[Capability]) -> Declined | None:
    """Return the decline of a charge with a capture of its own at a provider that has none. Nothing is sent for it."""
    if not payment.manual_capture or "manual_capture" in capabilities:
        return None
    return Declined("unsupported_operation", f"{payment.provider or 'the provider'} has no manual_capture")


_NEEDED: Mapping[tuple[OperationKind, bool], Sequence[Capability]] = {
    (OperationKind.CAPTURE, False): ("manual_capture",),
    (OperationKind.CAPTURE, True): ("manual_capture", "partial_capture"),
    (OperationKind.VOID, False): ("void",),
    (OperationKind.VOID, True): ("void",),
    (OperationKind.REFUND, False): ("refund",),
    (OperationKind.REFUND, True): ("refund", "partial_refund"),
}
