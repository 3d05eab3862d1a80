"""A gateway under test: an adapter, its simulator, and the gateway's own books. Each gateway has one such driver."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from okane.payment import Payment
from okane.providers.base import NoticeParser, Pending, Provider
from tests.conformance.fault_proxy import Recorded


class Wish(enum.Enum):
    """The outcome that a payment shall have at the simulator."""

    APPROVED = "approved"  # at once, or after the customer has done what `Pending` says
    DECLINED = "declined"
    SOFTLY_DECLINED = "softly_declined"
    WAITS = "waits"  # for the customer, who may fail


@dataclass(frozen=True, slots=True)
class Booked:
    """An entry of the gateway's own books that moved money, or (`moved` is False) may still move it."""

    ref: str
    amount_minor: int
    currency: str
    moved: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """The money of one payment in the gateway's own books, in minor units. Refunds that failed do not count."""

    held: int
    captured: int
    refunded: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedNotice:
    """A webhook as the gateway sends it, and the parser for the secrets that okane has at the time."""

    headers: Mapping[str, str]  # names in lower case
    body: bytes
    secret: str
    parser: Callable[[Sequence[str]], NoticeParser]


class Gateway(Protocol):
    """The driver of a gateway. `url` is the simulator's address."""

    name: str
    url: str
    secrets: Sequence[str]  # that never stand in a result
    finds_lost_charges: bool  # a look-up finds a charge whose answer was lost
    limits_before_charging: bool  # a 429 proves that nothing was charged
    takes_operation_keys: bool  # an operation that is asked for twice under one key is executed once

    def provider(self, base_url: str, *, timeout: timedelta) -> Provider:
        """Return a new adapter for this address. It is closed by the suite."""
        ...

    async def payment(self, wish: Wish) -> Payment | None:
        """Return a new payment that will have this outcome; None if this gateway has no such outcome."""
        ...

    def is_charge(self, request: Recorded) -> bool:
        """Return True for the request that charges, False for look-ups and access tokens."""
        ...

    def is_operation(self, request: Recorded) -> bool:
        """Return True for the request that captures, voids or refunds."""
        ...

    async def money(self, payment: Payment) -> Money:
        """Return what the gateway's own books say about the money of a payment."""
        ...

    async def finish(self, pending: Pending, *, succeeded: bool) -> None:
        """Do what the customer does."""
        ...

    async def books(self, payment: Payment) -> Sequence[Booked]:
        """Return what the gateway itself lists for this payment."""
        ...

    async def notice(self, payment: Payment) -> SignedNotice | None:
        """Return the notice about a payment that was charged; None if this gateway sends none."""
        ...

    def check_request(self, request: Recorded) -> None:
        """Raise AssertionError for a request that the gateway's own description does not allow."""
        ...
