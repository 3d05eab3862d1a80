"""The interface of a payment provider, and the closed set of its results.

A call that may have been executed is `Unknown`, never `Unavailable`: the difference decides whether a payment may be
charged again or has to be looked up first.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from okane.payment import Payment
from streams.values import value


@value
class Approved:
    """The money moved. `provider_ref` is the provider's name for the charge."""

    provider_ref: str


@dataclass(frozen=True, slots=True)
class Declined:
    """The provider refused the charge for good under this key; nothing moved."""

    code: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The provider did not take the request; nothing moved. Its `retry_after` takes precedence over our backoff."""

    reason: str
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """The request may have been executed. Only a look-up can decide."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotFound:
    """A look-up found no charge under this key. It counts only after the provider's consistency lag."""


ChargeResult = Approved | Declined | Unavailable | Unknown
LookUpResult = Approved | Declined | NotFound | Unavailable | Unknown


class Provider(Protocol):
    """A payment provider. Both calls are safe to repeat: they carry `payment.provider_key`."""

    @property
    def name(self) -> str: ...

    async def charge(self, payment: Payment) -> ChargeResult: ...

    async def look_up(self, payment: Payment) -> LookUpResult: ...

    async def aclose(self) -> None: ...
