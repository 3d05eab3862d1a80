"""The account's disputes: one method per route."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Self
from uuid import UUID

from okane.client import arguments
from okane.client.transport import Transport
from okane.client.values import Document, moment
from okane.dispute import DisputeStatus

_PATH = "/v1/disputes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispute:
    """A dispute as its provider reported it last. `due_by`: evidence is taken until then, at the provider."""

    id: UUID
    payment: UUID
    provider: str
    provider_ref: str
    amount: int
    currency: str
    status: DisputeStatus
    created_at: datetime
    updated_at: datetime
    reason: str | None = None
    due_by: datetime | None = None

    @classmethod
    def of(cls, document: Document) -> Self:
        return cls(
            id=UUID(document["id"]),
            payment=UUID(document["payment"]),
            provider=document["provider"],
            provider_ref=document["provider_ref"],
            amount=document["amount"],
            currency=document["currency"],
            status=DisputeStatus(document["status"]),
            created_at=datetime.fromisoformat(document["created_at"]),
            updated_at=datetime.fromisoformat(document["updated_at"]),
            reason=document.get("reason"),
            due_by=moment(document.get("due_by")),
        )


class Disputes:
    """Reads disputes. It belongs to a `Client`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        *,
        status: Iterable[DisputeStatus] = (),
        provider: str | None = None,
        payment_id: UUID | str | None = None,
    ) -> AsyncIterator[Dispute]:
        """Iterate over the disputes, newest first: in any of these statuses, at this provider, of this payment."""
        query = [
            ("status", DisputeStatus(arguments.typed("status", one, str)).value)
            for one in arguments.several("status", status)
        ]
        if provider is not None:
            query.append(("provider", arguments.text("provider", provider)))
        if payment_id is not None:
            query.append(("payment", str(arguments.payment_id(payment_id))))
        return self._transport.pages(_PATH, "disputes", Dispute.of, query)

    async def get(self, dispute_id: UUID | str) -> Dispute:
        """Return a dispute. Raises NotFound."""
        found = arguments.dispute_id(dispute_id)
        return Dispute.of((await self._transport.send("GET", f"{_PATH}/{found}"))["dispute"])
