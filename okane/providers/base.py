"""What the pipeline asks of a payment provider, and the closed set of answers it may get.

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
    """The provider said no for good under this key; nothing moved."""

    code: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The provider did not take the request; nothing moved there. `retry_after` is its wish, and wins over ours."""

    reason: str
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """The request may have been executed. Only a look-up can tell."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotFound:
    """Look-up only: the provider has never seen this key (which counts only after its consistency lag)."""


ChargeResult = Approved | Declined | Unavailable | Unknown
LookUpResult = Approved | Declined | NotFound | Unavailable | Unknown


class Provider(Protocol):
    """A payment provider. Both calls are safe to repeat: they carry `payment.provider_key`."""

    @property
    def name(self) -> str: ...

    async def charge(self, payment: Payment) -> ChargeResult: ...

    async def look_up(self, payment: Payment) -> LookUpResult: ...

    async def aclose(self) -> None: ...
