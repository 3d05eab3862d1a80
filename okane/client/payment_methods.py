"""The account's saved payment methods: one method per route."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self
from uuid import UUID

from okane.client import arguments
from okane.client.transport import Transport
from okane.client.values import Document, moment

_PATH = "/v1/payment-methods"


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentMethod:
    """A saved payment method. `providers` are those that it has a token at; `expires` is the last month of a card."""

    id: UUID
    kind: str
    providers: Sequence[str]
    created_at: datetime
    customer: str | None = None
    brand: str | None = None
    last4: str | None = None
    expires: str | None = None
    deleted_at: datetime | None = None

    @classmethod
    def of(cls, document: Document) -> Self:
        return cls(
            id=UUID(document["id"]),
            kind=document["kind"],
            providers=document["providers"],
            created_at=datetime.fromisoformat(document["created_at"]),
            customer=document.get("customer"),
            brand=document.get("brand"),
            last4=document.get("last4"),
            expires=document.get("expires"),
            deleted_at=moment(document.get("deleted_at")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPaymentMethod:
    """A payment method to save: its token at each provider, and its description for people. No other method of the account
    has its idempotency key. Raises TypeError or ValueError for a value of another type."""

    tokens: Mapping[str, str] = field(repr=False)
    kind: str
    idempotency_key: str
    brand: str | None = None
    last4: str | None = None
    expires: str | None = None
    customer: str | None = None

    def __post_init__(self) -> None:
        arguments.idempotency_key(self.idempotency_key)
        object.__setattr__(self, "tokens", arguments.texts("tokens", self.tokens))
        for name, text in self._texts.items():
            arguments.text(name, text)

    @property
    def _texts(self) -> Mapping[str, str]:
        names = ("kind", "brand", "last4", "expires", "customer")
        return {name: text for name in names if (text := getattr(self, name)) is not None}

    def document(self) -> Document:
        """Return the JSON document, without the members that are not set."""
        return {"tokens": self.tokens, "idempotency_key": self.idempotency_key, **self._texts}


class PaymentMethods:
    """Saves, reads and deletes payment methods. It belongs to a `Client`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def save(self, new: NewPaymentMethod) -> PaymentMethod:
        """Save a method, or find the one of an earlier request with its key. Raises KeyReused."""
        document = arguments.typed("new", new, NewPaymentMethod).document()
        return PaymentMethod.of((await self._transport.send("POST", _PATH, body=document))["payment_method"])

    def list(self, *, customer: str | None = None) -> AsyncIterator[PaymentMethod]:
        """Iterate over the methods that are not deleted, newest first. Pages are read as they are needed."""
        query = [] if customer is None else [("customer", arguments.text("customer", customer))]
        return self._transport.pages(_PATH, "payment_methods", PaymentMethod.of, query)

    async def get(self, method_id: UUID | str) -> PaymentMethod:
        """Return a method, also a deleted one. Raises NotFound."""
        return PaymentMethod.of((await self._transport.send("GET", _path(method_id)))["payment_method"])

    async def delete(self, method_id: UUID | str) -> None:
        """Let a method take no new payments; those that were accepted are still charged. Raises NotFound."""
        await self._transport.send("DELETE", _path(method_id))


def _path(method_id: UUID | str) -> str:
    return f"{_PATH}/{arguments.method_id(method_id)}"
