"""What each route does: read the request, ask the pipeline or the store, write the answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler

from okane.api import wire
from okane.api.answers import JSON, Answer
from okane.api.caller import account_of
from okane.api.creating import MAX_BODY_BYTES, Creating, Spelling, location, told
from okane.api.problems import Problem
from okane.api.waiting import Waiting, preferred_s
from okane.config import Settings
from okane.errors import StoreUnavailable
from okane.metrics import OkaneMetrics
from okane.payment import Payment
from okane.pipeline.accept import Accept
from okane.store import PaymentStore

CURLS = "application/x-www-form-urlencoded"
BODY_TIMEOUT_S = 5.0  # 64 kB take longer only from somebody who means to
UTF_8 = frozenset({"utf-8", "utf8"})


class Handlers:
    """The handlers of the payment routes."""

    def __init__(
        self, *, settings: Settings, store: PaymentStore, accept: Accept, waiting: Waiting, metrics: OkaneMetrics
    ) -> None:
        self.creating = Creating(settings=settings, accept=accept, metrics=metrics)
        self._store = store
        self._accept = accept
        self.waiting = waiting

    def creates(self, spelling: Spelling) -> Handler:
        """`POST /payments`, `POST /v1/payments`, `POST /pay`: 202 for a new payment, 200 for the repeat of a request."""

        async def create(request: web.Request) -> web.Response:
            _check_media_type(request)
            new = self.creating.read(await _read(request), request.headers.getall("Idempotency-Key", []))
            [receipt] = await self.creating.accept_many([new])
            if isinstance(receipt, BaseException):
                raise receipt
            payment, headers = await self._waited(request, receipt.payment)
            response = told(replace(receipt, payment=payment), spelling).response()
            response.headers.update(headers)
            return response

        return create

    async def show(self, request: web.Request) -> web.Response:
        """`GET /payments/{id}`: the payment as it is now; `pay_…` ids get the older queue's document."""
        found = await self._store.get(wire.payment_id(request.match_info["payment_id"]), account_id=account_of(request))
        payment, headers = await self._waited(request, found)
        headers["ETag"] = f'"{payment.version}"'
        if not payment.status.terminal:
            headers["Retry-After"] = "1"
        # `*` and weak tags match as RFC 9110 13.1.2 says; there are no commas in ours.
        known = {tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")}
        if headers["ETag"] in known or "*" in known:
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        older = request.match_info["payment_id"].startswith("pay_")
        body = wire.pay_json(payment) if older else wire.payment_json(payment)
        return web.Response(body=body, content_type=JSON, headers=headers)

    async def _waited(self, request: web.Request, payment: Payment) -> tuple[Payment, dict[str, str]]:
        """The payment after the wait that its client prefers, and what to say about that."""
        wait_s = preferred_s(request.headers)
        if wait_s is None:
            return payment, {}
        if wait_s and not payment.status.at_rest:
            await self.waiting.until_at_rest(request, payment.id, wait_s=wait_s)
            payment = await self._store.get(payment.id, account_id=payment.account_id)
        return payment, {"Preference-Applied": f"wait={wait_s}"}

    async def retry(self, request: web.Request) -> web.Response:
        """`POST /v1/payments/{id}/retry`: a failed payment is pending again; 409 from any other status."""
        receipt = await self._accept.retry(
            wire.payment_id(request.match_info["payment_id"]), account_id=account_of(request)
        )
        return Answer(HTTPStatus.ACCEPTED, wire.receipt_json(receipt), {"Location": location(receipt)}).response()

    async def cancel(self, request: web.Request) -> web.Response:
        """`POST /v1/payments/{id}/cancel`: the payment is not charged any more; 409 if that is too late, or unclear."""
        payment_id = wire.payment_id(request.match_info["payment_id"])
        payment = await self._accept.cancel(payment_id, account_id=account_of(request))
        return web.Response(body=wire.payment_json(payment), content_type=JSON)

    async def health(self, _request: web.Request) -> web.Response:
        """`GET /v1/health`, `/health`, `/healthz`: this process answers. Says nothing about what it depends on."""
        return web.Response(body=b'{"status":"ok"}', content_type=JSON)

    async def ready(self, _request: web.Request) -> web.Response:
        """`GET /readyz`: payments can be accepted, that is, Postgres takes writes. Redis may be away: the sweep covers it."""
        try:
            await self._store.check_writable()
        except StoreUnavailable as error:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "not_ready",
                f"Postgres takes no writes: {error}",
                retryable=True,
                headers={"Retry-After": "1"},
            ) from error
        return web.Response(body=b'{"status":"ready"}', content_type=JSON)


async def _read(request: web.Request) -> bytes:
    """The body. One that says it is too large is refused unread, one that does not come is not waited for."""
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise web.HTTPRequestEntityTooLarge(max_size=MAX_BODY_BYTES, actual_size=request.content_length or 0)
    if request.content.is_eof():
        return await request.read()  # all of it is here
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.read()
    except TimeoutError:
        raise Problem(
            HTTPStatus.REQUEST_TIMEOUT,
            "body_too_slow",
            f"the body did not come within {BODY_TIMEOUT_S:g} s",
            retryable=True,
        ) from None


def _check_media_type(request: web.Request) -> None:
    """JSON in UTF-8, as it is. No Content-Type, or the one that `curl -d` sets by itself, is taken for that: the clients of
    the systems before us send those, and a body that is no JSON is refused all the same."""
    said = request.headers.get("Content-Type")
    plain = said is None or (request.content_type in (JSON, CURLS) and (request.charset or "utf-8").lower() in UTF_8)
    coded = request.headers.get("Content-Encoding", "identity").lower() != "identity"
    if not plain or coded:
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "send the body uncompressed" if coded else "send application/json in UTF-8",
        )
