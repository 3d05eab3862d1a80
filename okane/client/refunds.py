"""The account's refunds: one method per route.

Guarantee: a refund is made once, however many answers get lost; together they never exceed what was captured.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Literal, TypedDict, Unpack
from uuid import UUID

from okane.client import arguments
from okane.client.transport import ETAG, Transport
from okane.client.values import Document, Operation, OperationReceipt
from okane.operation import OperationStatus
from okane.payment import Status

_REFUNDS = "/v1/refunds"


class RefundFilter(TypedDict, total=False):
    """The refunds to list, and their order: newest first unless it is `ascending`."""

    order: Literal["ascending", "descending"]
    status: Iterable[OperationStatus]
    payment: UUID | str
    currency: str
    created_after: datetime
    created_before: datetime
    idempotency_key: str


_KINDS: Mapping[str, Callable[[Any], Any]] = {
    "order": arguments.order,
    "status": arguments.operation_statuses,
    "payment": arguments.payment_id,
    "currency": arguments.currency,
    "created_after": partial(arguments.moment, "created_after"),
    "created_before": partial(arguments.moment, "created_before"),
    "idempotency_key": arguments.idempotency_key,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRefund:
    """A refund to create: of `amount` in minor units, or of all that is not refunded yet. No other has its idempotency key.

    Raises TypeError or ValueError for a value that JSON would change.
    """

    payment_id: UUID | str
    idempotency_key: str
    amount: int | None = None
    currency: str | None = None
    reason: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "payment_id", arguments.payment_id(self.payment_id))
        arguments.idempotency_key(self.idempotency_key)
        if self.amount is not None:
            arguments.amount("amount", self.amount)
        if self.currency is not None:
            arguments.currency(self.currency)
        if self.reason is not None:
            arguments.text("reason", self.reason)
        object.__setattr__(self, "metadata", arguments.metadata(self.metadata))

    def document(self) -> Document:
        """Return the JSON document, without the members that are not set."""
        members = {"amount": self.amount, "currency": self.currency, "reason": self.reason}
        return {
            "payment": str(self.payment_id),
            "idempotency_key": self.idempotency_key,
            **{name: value for name, value in members.items() if value is not None},
            "metadata": self.metadata,
        }


class Refunds:
    """Makes, reads and decides refunds. It belongs to a `Client`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def create(self, new: NewRefund) -> OperationReceipt:
        """Create a refund, or find the one of an earlier request. Raises OperationRefused if it is not possible."""
        body = arguments.typed("new", new, NewRefund).document()
        return OperationReceipt.of(await self._transport.send("POST", _REFUNDS, body=body), "refund")

    async def get(self, refund_id: UUID | str) -> Operation:
        """Return the refund as it is now. Raises NotFound."""
        document = await self._transport.send("GET", _path(refund_id))
        return Operation.of(document["refund"], etag=document.get(ETAG, ""))

    def list(self, **which: Unpack[RefundFilter]) -> AsyncIterator[Operation]:
        """Iterate over refunds, newest first unless `order="ascending"`. Pages are read as they are needed."""
        return self._transport.pages(_REFUNDS, "refunds", Operation.of, arguments.query(which, _KINDS))

    async def cancel(self, refund_id: UUID | str) -> Operation:
        """Withdraw a refund before it is executed. Raises Conflict if it is too late, or its outcome is open."""
        return Operation.of((await self._transport.send("POST", _path(refund_id, "/cancel")))["refund"])

    async def retry(self, refund_id: UUID | str) -> OperationReceipt:
        """Retry a failed refund. Without an answer the request is not repeated: it may have failed again."""
        document = await self._transport.send("POST", _path(refund_id, "/retry"), repeatable=False)
        return OperationReceipt.of(document, "refund")

    async def resolve(
        self,
        refund_id: UUID | str,
        *,
        as_: Status | str,
        reason: str,
        provider_ref: str | None = None,
        version: int | None = None,
    ) -> Operation:
        """Decide a refund that needs a review: `success` or `failed_final`. Raises Conflict from any other status."""
        body = arguments.resolution(as_, reason=reason, provider_ref=provider_ref, version=version)
        return Operation.of((await self._transport.send("POST", _path(refund_id, "/resolve"), body=body))["refund"])


def _path(refund_id: UUID | str, of_it: str = "") -> str:
    return f"{_REFUNDS}/{arguments.refund_id(refund_id)}{of_it}"
