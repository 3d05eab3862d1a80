"""Resolves the saved payment method of a payment to the token of its provider, right before the provider is called."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import replace
from typing import Protocol
from uuid import UUID

from okane.payment import Payment
from okane.payment_method import saved_method_id
from okane.providers.base import Declined
from okane.worker.store_retry import StoreRetry

NO_TOKEN = Declined("payment_method_unusable", "the saved payment method has no token at this provider")


class TokenSource(Protocol):
    """The tokens of saved payment methods."""

    def tokens(self, account_id: str, method_id: UUID) -> Awaitable[Mapping[str, str]]:
        """Return the tokens by provider; none if the account has no such method. Raises StoreUnavailable."""
        ...


class SavedMethods:
    """The resolution of one worker. Without a source every payment method is a provider's own token."""

    def __init__(self, source: TokenSource | None, *, retry_store_call: StoreRetry) -> None:
        self._source = source
        self._retry_store_call = retry_store_call

    async def resolve(self, payment: Payment, provider: str) -> Payment | None:
        """Return the payment as the provider gets it, None if its saved method has no token there.

        A payment method with the form of an id that no method of the account has is a provider's own token: payments of
        before version 7 may have one.
        """
        method_id = saved_method_id(payment.payment_method)
        if method_id is None or self._source is None:
            return payment
        tokens = await self._retry_store_call(self._source.tokens, payment.account_id, method_id)
        if not tokens:
            return payment
        token = tokens.get(provider)
        return None if token is None else replace(payment, payment_method=token)
