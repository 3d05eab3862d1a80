"""The handlers of one payment: create, show, retry, cancel, resolve."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from okane.api import card_guard, payment_documents, payment_ids, request_body, strict_json
from okane.api.access import account_of, actor_of
from okane.api.answer import JSON, Answer, is_known
from okane.api.long_polling import LongPolling, preferred_wait_s
from okane.api.payment_creation import (
    MAX_BODY_BYTES,
    MODELS,
    ONLY_HTTP,
    RENDERERS,
    PaymentCreation,
    location,
    to_answer,
)
from okane.api.resolve_request import ResolveRequest
from okane.config import Settings
from okane.intake.accept import PaymentIntake
from okane.metrics import OkaneMetrics
from okane.payment import CANCELABLE, Payment, Status
from okane.providers.capabilities import NO_CAPABILITIES, Capabilities
from okane.providers.routing import Router
from okane.store import PaymentStore
from okane.store.payment_methods import PaymentMethodStore

log = structlog.get_logger("okane.api")


class PaymentHandlers:
    """The handlers of the payment routes."""

    def __init__(
        self,
        *,
        settings: Settings,
        store: PaymentStore,
        intake: PaymentIntake,
        long_polling: LongPolling,
        metrics: OkaneMetrics,
        providers: Collection[str] = ONLY_HTTP,
        router: Router | None = None,
        methods: PaymentMethodStore | None = None,
        capabilities: Capabilities = NO_CAPABILITIES,
    ) -> None:
        self.creation = PaymentCreation(
            settings=settings,
            intake=intake,
            metrics=metrics,
            providers=providers,
            router=router,
            methods=methods,
            capabilities=capabilities,
        )
        self._store = store
        self._intake = intake
        self.long_polling = long_polling

    def creator(self, path: str) -> Handler:
        """Return the handler of a path that makes payments: 202 for a new payment, 200 for the repeat of a request."""
        renderer, model = RENDERERS[path], MODELS[path]

        async def create(request: web.Request) -> web.Response:
            request_body.check_media_type(request, JSON)
            body = await request_body.read_body(request, MAX_BODY_BYTES)
            keys = request.headers.getall("Idempotency-Key", ())
            new = self.creation.parse(body, keys, account_id=account_of(request), model=model)
            [receipt] = await self.creation.create([new])
            if isinstance(receipt, BaseException):
                raise receipt
            payment, headers = await self._wait_as_preferred(request, receipt.payment)
            response = to_answer(replace(receipt, payment=payment), renderer).response()
            response.headers.update(headers)
            return response

        return create

    async def show(self, request: web.Request) -> web.Response:
        """`GET /payments/{id}`: the payment as it is now; `/payments/pay_…` gets the older queue's document."""
        found = await self._store.get(payment_ids.id_in_path(request), account_id=account_of(request))
        payment, headers = await self._wait_as_preferred(request, found)
        payment = await self._cancel_if_expired(payment)
        headers["ETag"] = f'"{payment.version}"'
        if not payment.status.is_terminal:
            headers["Retry-After"] = str(_retry_after_s(payment, self._store.clock.now()))
        if is_known(request, headers["ETag"]):
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        older = request.path.startswith("/payments/pay_")
        body = payment_documents.pay_json(payment) if older else payment_documents.payment_json(payment)
        return web.Response(body=body, content_type=JSON, headers=headers)

    async def _cancel_if_expired(self, payment: Payment) -> Payment:
        """Return the payment, canceled first if it has expired before a worker claimed it. The store decides."""
        over = payment.expires_at is not None and payment.expires_at <= self._store.clock.now()
        if over and payment.status in CANCELABLE and await self._store.expire(payment.id):
            return await self._store.get(payment.id, account_id=payment.account_id)
        return payment

    async def _wait_as_preferred(self, request: web.Request, payment: Payment) -> tuple[Payment, dict[str, str]]:
        """Return the payment after the wait that its client prefers, and the header about that."""
        wait_s = preferred_wait_s(request.headers)
        if wait_s is None:
            return payment, {}
        if wait_s and not payment.status.is_at_rest:
            # A client that has seen the next action, or that the money is held, waits for what comes of it.
            await self.long_polling.until_at_rest(request, payment.id, wait_s=wait_s, known=payment.status)
            payment = await self._store.get(payment.id, account_id=payment.account_id)
        return payment, {"Preference-Applied": f"wait={wait_s}"}

    async def retry(self, request: web.Request) -> web.Response:
        """`POST /v1/payments/{id}/retry`: make a failed payment pending again; 409 from any other status."""
        receipt = await self._intake.retry(
            payment_ids.id_in_path(request),
            account_id=account_of(request),
            actor=actor_of(request),
        )
        return Answer(
            HTTPStatus.ACCEPTED, payment_documents.receipt_json(receipt), {"Location": location(receipt)}
        ).response()

    async def resolve(self, request: web.Request) -> web.Response:
        """`POST /v1/payments/{id}/resolve`: decide a payment that needs a review; 409 from any other status."""
        found = await self._store.get(payment_ids.id_in_path(request), account_id=account_of(request))
        request_body.check_media_type(request, JSON)
        resolution = request_body.validate(
            ResolveRequest, strict_json.loads(await request_body.read_body(request, MAX_BODY_BYTES))
        )
        card_guard.check_resolution(resolution.reason, resolution.provider_ref)
        payment = await self._intake.resolve(
            found.id,
            account_id=found.account_id,
            decision=resolution.status,
            reason=resolution.reason,
            provider_ref=resolution.provider_ref,
            actor=actor_of(request),
            version=resolution.version,
        )
        return web.Response(body=payment_documents.payment_json(payment), content_type=JSON)


def _retry_after_s(payment: Payment, now: datetime) -> int:
    """Return the `Retry-After` of a payment: a second, or the time until `execute_at`, an hour at most."""
    if payment.status is not Status.PENDING or payment.execute_at is None:
        return 1
    return max(1, min(3600, math.ceil((payment.execute_at - now).total_seconds())))
