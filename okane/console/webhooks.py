"""The webhook endpoints of an account, and the deliveries to one of them."""

from __future__ import annotations

from http import HTTPStatus
from typing import get_args
from uuid import UUID

from aiohttp import web

from okane.api_key import Scope
from okane.console.page_errors import PageError
from okane.console.query_fields import choice_of, number_of
from okane.console.rendering import render
from okane.console.session import session_of
from okane.payment_id import parse_id
from okane.store import Overview
from okane.store.webhook_deliveries import DeliveryState, WebhookDeliveryStore
from okane.store.webhook_endpoints import EndpointState, WebhookEndpointStore
from okane.store.webhook_events import FARTHEST

PAGE = 50
EVERY_ACCOUNT = 50  # endpoints of all accounts: those in trouble first
STATES: tuple[DeliveryState, ...] = get_args(DeliveryState)


class WebhookScreens:
    """The pages."""

    def __init__(self, endpoints: WebhookEndpointStore, deliveries: WebhookDeliveryStore, overview: Overview) -> None:
        self._endpoints = endpoints
        self._deliveries = deliveries
        self._overview = overview

    async def show(self, request: web.Request) -> web.Response:
        """`GET /webhooks`: the account's endpoints; for the scope `system` those of every account, too."""
        session = session_of(request)
        every = await self._overview.webhook_endpoints(EVERY_ACCOUNT + 1) if session.may(Scope.SYSTEM) else None
        return render(
            request,
            "webhooks.html",
            states=await self._endpoints.list(session.account_id),
            every=None if every is None else every[:EVERY_ACCOUNT],
            has_more=every is not None and len(every) > EVERY_ACCOUNT,
        )

    async def endpoint(self, request: web.Request) -> web.Response:
        """`GET /webhooks/{endpoint_id}`: an endpoint with a page of its deliveries, those of the newest events first."""
        state = await endpoint_in(request, self._endpoints)
        before = number_of(request.query, "after", least=0, most=FARTHEST, default=FARTHEST)
        wanted = choice_of(request.query, "state", STATES)
        endpoint = state.endpoint
        page = await self._deliveries.of_endpoint(
            endpoint.account_id,
            endpoint.id,
            before=before,
            limit=PAGE,
            states=[one for one in STATES if one == wanted],
        )
        if page is None:
            raise not_found()
        return render(
            request,
            "endpoint.html",
            state=state,
            endpoint=endpoint,
            found=page.found,
            next=page.reached,
            is_first=before == FARTHEST,
            wanted=wanted,
            states=STATES,
        )


async def endpoint_in(request: web.Request, endpoints: WebhookEndpointStore) -> EndpointState:
    """Return the endpoint in a request's path, of the session's account. Raises PageError."""
    state = await endpoints.get(session_of(request).account_id, endpoint_id_in(request))
    if state is None:
        raise not_found()
    return state


def endpoint_id_in(request: web.Request) -> UUID:
    """Return the id in a request's path. Raises PageError."""
    endpoint_id = parse_id(request.match_info["endpoint_id"])
    if endpoint_id is None:
        raise not_found()
    return endpoint_id


def not_found() -> PageError:
    """Return the page for an endpoint of another account, or of none."""
    return PageError(HTTPStatus.NOT_FOUND, "This account has no such endpoint.")
