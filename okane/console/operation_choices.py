"""Decides which buttons a page has for captures, voids and refunds, by their status and the session. Pure: the store decides
again."""

from __future__ import annotations

from collections.abc import Set

from okane.console.session import Session
from okane.operation import Operation, OperationKind, OperationStatus
from okane.payment import Payment, Status

_S = OperationStatus


def is_capturable(payment: Payment) -> bool:
    """Tell whether the money of a payment is held, and no capture or void of it is under way."""
    return payment.status is Status.AUTHORIZED and payment.open_operation is None


def is_refundable(payment: Payment) -> bool:
    """Tell whether something of the captured amount is left to refund, at the provider that was called."""
    return payment.refundable_minor > 0 and payment.called_provider is not None


def actions_for(operation: Operation, session: Session) -> Set[str]:
    """Return what the session may do with an operation: `cancel`, `retry`, `resolve`."""
    status, found = operation.status, set()
    if session.may("write"):
        is_unexecuted = status in (_S.PENDING, _S.FAILED_RETRYABLE) and operation.provider_ref is None
        if operation.kind is OperationKind.REFUND and is_unexecuted:
            found.add("cancel")
        # Money that is known to have moved is not moved again; a decline has moved none.
        has_moved = operation.provider_ref is not None and operation.decline_code is None
        if status is _S.FAILED_RETRYABLE or (status is _S.FAILED_FINAL and not has_moved):
            found.add("retry")
    if session.may("operate") and status is _S.NEEDS_REVIEW:
        found.add("resolve")
    return found
