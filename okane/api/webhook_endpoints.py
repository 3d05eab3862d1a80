"""The handlers of webhook endpoints: create, list, show, change and delete them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import structlog
from aiohttp import web

from okane.api import card_guard
from okane.api.access import account_of, actor_of
from okane.api.problems import FieldError, Problem, invalid
from okane.api.webhook_documents import endpoint_document
from okane.api.webhook_requests import ChangeEndpoint, CreateEndpoint
from okane.api.webhook_services import (
    WebhookServices,
    body_of,
    endpoint_id_in,
    endpoint_not_found,
    json_answer,
)
from okane.store.webhook_endpoints import MAX_ENDPOINTS, CreateRefusal, Endpoint, EndpointState, NewEndpoint
from okane.webhooks import keys, signing
from okane.webhooks.confirmation import is_confirmed_in_time
from okane.webhooks.endpoint_tests import EndpointTests
from okane.webhooks.types import API_VERSION

log = structlog.get_logger("okane.api")


class EndpointHandlers:
    """The handlers of endpoints."""

    def __init__(self, services: WebhookServices, tests: EndpointTests) -> None:
        self._services = services
        self._endpoints = services.endpoints
        self._tests = tests

    async def create(self, request: web.Request) -> web.Response:
        """`POST /v1/webhook-endpoints`: create an endpoint, and show its secret."""
        members = (await body_of(request, CreateEndpoint)).members()
        masters = self._services.needed_masters()
        self._check(members)
        new = NewEndpoint(id=uuid4(), account_id=account_of(request), api_version=API_VERSION, **members)
        made = await self._endpoints.create(new)
        match made:
            case CreateRefusal.TOO_MANY:
                detail = f"an account has up to {MAX_ENDPOINTS} endpoints: delete one first"
                raise Problem(HTTPStatus.CONFLICT, "too_many_endpoints", detail)
            case CreateRefusal.BUSY:
                raise _busy("changes of payments did not end in time, and nothing was created: repeat the request")
            case Endpoint():
                log_change("webhook_endpoint_created", request, made)
                document = {
                    "endpoint": endpoint_document(EndpointState(endpoint=made)),
                    "secret": keys.secret(masters.current, made.id, made.key_generation),
                }
                headers = {"Location": f"{request.path}/{made.id}"}
                return json_answer(document, status=HTTPStatus.CREATED, headers=headers)

    async def list(self, request: web.Request) -> web.Response:
        """`GET /v1/webhook-endpoints`: the endpoints of the account, oldest first."""
        states = await self._endpoints.list(account_of(request))
        return json_answer({"endpoints": [endpoint_document(state) for state in states]})

    async def show(self, request: web.Request) -> web.Response:
        """`GET /v1/webhook-endpoints/{id}`: an endpoint, and how its deliveries stand."""
        return json_answer({"endpoint": endpoint_document(await self._services.state_of(request))})

    async def change(self, request: web.Request) -> web.Response:
        """`PATCH /v1/webhook-endpoints/{id}`: change the members that are given."""
        state = await self._services.state_of(request)
        members = (await body_of(request, ChangeEndpoint)).members()
        self._check(members)
        if "url" in members:
            check_has_url(state.endpoint)
        if members:
            changed = await self._endpoints.change(account_of(request), state.endpoint.id, members)
            if changed is None:
                raise endpoint_not_found(state.endpoint.id)
            log_change("webhook_endpoint_changed", request, changed, members=sorted(members))
        return await self.show(request)

    async def delete(self, request: web.Request) -> web.Response:
        """`DELETE /v1/webhook-endpoints/{id}`: delete an endpoint; answered when no request to it can begin any more."""
        endpoint_id = endpoint_id_in(request)
        deleted = await self._endpoints.delete(account_of(request), endpoint_id)
        if deleted is None:
            raise endpoint_not_found(endpoint_id)
        log_change("webhook_endpoint_deleted", request, deleted)
        await self._tests.end(endpoint_id)
        await until(lambda: self._endpoints.finish_delete(deleted))
        return web.Response(status=HTTPStatus.NO_CONTENT)

    def _check(self, members: Mapping[str, Any]) -> None:
        """Raise a 422 Problem for members that only this server can judge."""
        url = members.get("url")
        reason = None if url is None else self._services.guard.check_url(url)
        if reason is not None:
            errors = [FieldError("/url", "endpoint_url_refused", reason)]
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "endpoint_url_refused", f"/url: {reason}", errors=errors)
        card_guard.check_endpoint(url, members.get("description"))
        if members.get("asymmetric") and not signing.has_asymmetric():
            raise invalid([FieldError("/asymmetric", "unavailable", "this server cannot sign with ed25519")])


def check_has_url(endpoint: Endpoint) -> None:
    """Raise a 409 Problem for an endpoint to which nothing is sent."""
    if endpoint.url is None:
        raise Problem(
            HTTPStatus.CONFLICT, "endpoint_has_no_url", "nothing is sent to this endpoint: read GET /v1/events instead"
        )


async def until(done: Callable[[], Awaitable[bool]]) -> None:
    """Wait until the dispatcher that holds an endpoint's queue has confirmed a change, or its lease has expired.

    Raises a 503 Problem after `CONFIRM_S`: the change is made, and not confirmed.
    """
    if not await is_confirmed_in_time(done):
        raise _busy("the dispatcher has not confirmed the change, which is made: repeat the request")


def log_change(event: str, request: web.Request, endpoint: Endpoint, **more: object) -> None:
    """Log a change that a client has made. Its URL stays out: it may hold a token."""
    log.info(
        event,
        endpoint=str(endpoint.id),
        account=endpoint.account_id,
        actor=actor_of(request),
        version=endpoint.version,
        **more,
    )


def _busy(detail: str) -> Problem:
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE, "webhooks_busy", detail, retryable=True, headers={"Retry-After": "1"}
    )
