"""Captures, voids and refunds of a payment, and the transitions of their status. Pure, like `payment`.

An operation has the life cycle of a payment: it is claimed under a fence, called at the provider of its payment, settled, and
looked up when its outcome is open. What it moves is reserved in the row of its payment before it exists.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from uuid import UUID

from streams.values import value


class OperationKind(enum.StrEnum):
    """A capture takes money that was authorized, a void lets it go, a refund gives back what was captured."""

    CAPTURE = "capture"
    VOID = "void"
    REFUND = "refund"


class OperationStatus(enum.StrEnum):
    """The status of an operation: those of a payment that it can have."""

    PENDING = "pending"
    PROCESSING = "processing"
    SUBMITTED = "submitted"
    SUCCESS = "success"
    FAILED_RETRYABLE = "failed_retryable"
    FAILED_FINAL = "failed_final"
    UNKNOWN = "unknown"
    CANCELED = "canceled"
    NEEDS_REVIEW = "needs_review"

    @property
    def is_at_rest(self) -> bool:
        """True if only a human, or a late result of the provider, changes it."""
        return self in AT_REST


_S = OperationStatus

TERMINAL = frozenset({_S.SUCCESS, _S.FAILED_FINAL, _S.CANCELED})
AT_REST = TERMINAL | {_S.NEEDS_REVIEW}

# From -> to. A refund that succeeded may fail days later, when the customer's bank sends it back. A refund that had failed or
# was canceled and moved money after all needs a review, like a payment.
TRANSITIONS: Mapping[OperationStatus, frozenset[OperationStatus]] = {
    _S.PENDING: frozenset({_S.PROCESSING, _S.CANCELED, _S.NEEDS_REVIEW}),
    _S.PROCESSING: frozenset(
        {
            _S.PROCESSING,  # the lease expired: another worker claims it and looks it up
            _S.SUBMITTED,
            _S.SUCCESS,
            _S.FAILED_RETRYABLE,
            _S.FAILED_FINAL,
            _S.UNKNOWN,
            _S.NEEDS_REVIEW,
        }
    ),
    _S.SUBMITTED: frozenset({_S.PROCESSING, _S.NEEDS_REVIEW}),
    _S.FAILED_RETRYABLE: frozenset({_S.PROCESSING, _S.PENDING, _S.CANCELED, _S.NEEDS_REVIEW}),
    _S.UNKNOWN: frozenset({_S.PROCESSING, _S.NEEDS_REVIEW}),
    _S.SUCCESS: frozenset({_S.FAILED_FINAL}),
    _S.FAILED_FINAL: frozenset({_S.PENDING, _S.NEEDS_REVIEW}),
    _S.CANCELED: frozenset({_S.NEEDS_REVIEW}),
    _S.NEEDS_REVIEW: frozenset({_S.SUCCESS, _S.FAILED_FINAL}),
}

OperationCall = Literal["operate", "look_up"]


@value
class Operation:
    """One row of `operations`, for every layer.

    `amount_minor` is in minor units of `currency`, the payment's. `attempts` counts claims and is the fence. `provider_key`
    is the idempotency key at the provider, which is the payment's `provider`. `provider_ref` is the provider's name for the
    capture or refund. `idempotency_key` is the client's; None: the void of an authorization that ends.
    """

    id: UUID
    payment_id: UUID
    account_id: str
    kind: OperationKind
    idempotency_key: str | None
    amount_minor: int
    currency: str
    status: OperationStatus
    attempts: int
    retries: int
    version: int
    provider: str
    provider_key: str
    created_at: datetime
    updated_at: datetime
    metadata: Mapping[str, str]
    reason: str | None = None
    provider_ref: str | None = None
    decline_code: str | None = None
    last_error: str | None = None
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOperation:
    """A request for an operation, validated. `amount_minor` None: all that is left. `currency` None: the payment's.

    `fingerprint` is the SHA-256 of the request's meaning. `account_id` None: of any account (an operator asks). `version` is
    the one of the payment that a person has decided by; None: any.
    """

    payment_id: UUID
    account_id: str | None
    kind: OperationKind
    idempotency_key: str
    fingerprint: bytes
    amount_minor: int | None = None
    currency: str | None = None
    reason: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    request_id: str | None = None
    api_key: str | None = None
    version: int | None = None
