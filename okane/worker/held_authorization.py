"""The end of authorizations that were not captured: okane voids each shortly before, and finds those that are over already.

An authorization is looked up when a notice says that no money moved, and each day where the provider does not tell when it
ends. One that holds the money no longer is voided, too: the provider's answer to that decides what becomes of the payment.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, assert_never
from uuid import UUID

import structlog

from okane.payment import Payment
from okane.providers.base import Approved, Authorized, Declined, LookUpResult, NotFound, Pending, Unavailable, Unknown
from okane.store import PaymentStore
from okane.worker.provider_set import Gateway, ProviderSet
from okane.worker.store_retry import StoreRetry

log = structlog.get_logger("okane.late")


class EndAuthorization(Protocol):
    """The void that okane itself requests."""

    def __call__(self, payment_id: UUID, *, is_over: bool = False) -> Awaitable[bool]:
        """Request it if the authorization is about to end or `is_over`; return False if it is not due. Raises
        StoreUnavailable; it may be repeated then."""
        ...


class HeldAuthorizations:
    """The authorizations of one worker's payments."""

    def __init__(
        self,
        *,
        store: PaymentStore,
        retry_store_call: StoreRetry,
        providers: ProviderSet,
        look_up: Callable[[Payment, Gateway], Awaitable[LookUpResult]],
        end: EndAuthorization,
    ) -> None:
        self._store = store
        self._retry_store_call = retry_store_call
        self._providers = providers
        self._look_up = look_up
        self._end = end

    async def run(self, payment_id: UUID, *, is_sent: bool) -> None:
        """Void the authorization if it is about to end; else look it up if the sweep `is_sent` for that. Without an answer it
        is due again by itself."""
        if await self._retry_store_call(self._end, payment_id) or not is_sent:
            return
        payment = await self._retry_store_call(self._store.begin_authorization_look_up, payment_id)
        if payment is None or payment.open_operation is not None:
            return
        gateway = self._providers.of(payment)
        if gateway is None:  # another worker may have it, next time
            _unanswered(payment, f"no provider {payment.called_provider} here")
            return
        result = await self._look_up(payment, gateway)
        match result:
            case Authorized():
                await self._retry_store_call(self._store.plan_authorization_look_up, payment)
            case Approved() | Declined() | Unknown(at_once=True):
                # It holds the money no longer, or other money. The void moves none, and its failure goes to a review.
                await self._retry_store_call(self._end, payment_id, is_over=True)
            case NotFound() | Pending():
                _unanswered(payment, "the provider does not know the authorization")
            case Unavailable(reason=reason) | Unknown(reason=reason):
                _unanswered(payment, reason)
            case _:
                assert_never(result)


def _unanswered(payment: Payment, reason: str) -> None:
    log.info("late_look_up_unanswered", payment_id=str(payment.id), reason=reason)
