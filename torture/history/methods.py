"""The journals of saved payment methods: the answers to their owners, and what the gateway charged with their tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torture.gateway.books import read_intents

if TYPE_CHECKING:
    from torture.history.journals import Request

__all__ = ["MethodCharge", "MethodHistory", "MethodPayment", "SavedMethod", "read_method_charges"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedMethod:
    """A payment method as its owner knows it. `ids` are those in the answers to its creation, under one key.

    Its deletion was asked for at `asked_s` and acknowledged at `deleted_s`, in seconds since the run started; None: not yet.
    """

    key: str
    ids: Sequence[str]
    customer: str  # of its token at Stripe
    token: str
    providers: frozenset[str]
    asked_s: float | None = None
    deleted_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodPayment:
    """A try to pay with a saved method; all tries of a payment have its key. `is_present`: the customer was there."""

    method_key: str
    is_present: bool
    request: Request


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodCharge:
    """A PaymentIntent at the gateway, with the token that it charges."""

    payment_id: str
    customer: str
    token: str
    off_session: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodHistory:
    """The journals of one run. `methods` by their keys; `charges` are all of the gateway's."""

    methods: Mapping[str, SavedMethod] = field(default_factory=dict)
    payments: Sequence[MethodPayment] = ()
    charges: Sequence[MethodCharge] = ()


def read_method_charges(journal: Path) -> Sequence[MethodCharge]:
    """Return the tokens that the gateway was to charge, from its journal."""
    return [
        MethodCharge(payment_id=one.payment_id, customer=one.customer, token=one.method, off_session=one.off_session)
        for one in read_intents(journal)
    ]
