"""The provider's own list of what it did: the other side of `okane reconcile`. Not every provider has one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Literal, Protocol
from uuid import UUID

from okane.errors import OkaneError
from streams.values import value

RecordKind = Literal["charge", "capture", "refund"]

# `authorized`: the money is held. `failed`: of captures and refunds. A refused charge moves nothing and is not listed.
RecordStatus = Literal["succeeded", "authorized", "pending", "canceled", "failed"]


@value
class ProviderRecord:
    """One charge, capture or refund as the provider has it. `amount_minor` is in minor units of `currency` (ISO 4217).

    `provider_ref` is the name that a charge or refund returns. `payment_id` and `operation_id` are ours, if the record names
    them. `captured_minor`: of a charge, what was captured of it, where the provider has no records of captures. `fee_minor`
    is in `fee_currency`.
    """

    kind: RecordKind
    at: datetime
    provider_ref: str
    status: RecordStatus
    amount_minor: int
    currency: str
    payment_id: UUID | None = None
    operation_id: UUID | None = None
    captured_minor: int | None = None
    fee_minor: int | None = None
    fee_currency: str | None = None


class ListingFailed(OkaneError):
    """The provider's list could not be read to its end."""


class Listing(Protocol):
    """A provider's list of its records. `name` is the provider's."""

    @property
    def name(self) -> str: ...

    def list_records(self, begin: datetime, end: datetime) -> AsyncIterator[Sequence[ProviderRecord]]:
        """Yield the charges, captures and refunds made from `begin` to before `end`, in pages. Raises ListingFailed, and
        never ends early without it."""
        ...

    async def aclose(self) -> None: ...
