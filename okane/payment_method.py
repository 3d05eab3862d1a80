"""Saved payment methods: one id for a customer's card or account, with its token at each provider. Pure.

Guarantee: no text of a method shows a token. Tokens go to the provider that gave them, and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from uuid import UUID

from streams.values import value

# A UUID v7, as okane makes them: the tokens of many providers are UUIDs too, of version 4.
PATTERN = "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-7[0-9A-Fa-f]{3}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"
_LENGTH = 36
_ID = re.compile(PATTERN)


@value
class SavedMethod:
    """A saved payment method. `customer` is the client's name for the customer; `expires_on` the last day of a card.

    `providers` are those that it has a token at, sorted. A method with `deleted_at` takes no new payments.
    """

    id: UUID
    account_id: str
    kind: str
    providers: Sequence[str]
    created_at: datetime
    customer: str | None = None
    brand: str | None = None
    last4: str | None = None
    expires_on: date | None = None
    deleted_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSavedMethod:
    """A request to save a payment method, validated. `tokens` are by provider.

    `fingerprint` is the SHA-256 of its meaning.
    """

    id: UUID
    account_id: str
    idempotency_key: str
    fingerprint: bytes
    tokens: Mapping[str, str] = field(repr=False)
    kind: str
    customer: str | None = None
    brand: str | None = None
    last4: str | None = None
    expires_on: date | None = None
    request_id: str | None = None
    api_key: str | None = None


def saved_method_id(payment_method: str | None) -> UUID | None:
    """Return the id of the saved method that a payment names, or None: it names a provider's own token, or nothing."""
    if payment_method is None or len(payment_method) != _LENGTH or not _ID.fullmatch(payment_method):
        return None
    return UUID(payment_method)
