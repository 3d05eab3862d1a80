"""The stores and keys that the handlers of endpoints and events share, and the parts of requests that they read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel

from okane.api import request_body, strict_json
from okane.api.access import account_of
from okane.api.answer import JSON
from okane.api.problems import Problem
from okane.api.webhook_requests import parse_endpoint_id
from okane.http.guard import Guard
from okane.store.account_events import AccountEvents, EventWatch
from okane.store.webhook_deliveries import WebhookDeliveryStore
from okane.store.webhook_endpoints import EndpointState, WebhookEndpointStore
from okane.webhooks.keys import Masters

M = TypeVar("M", bound=BaseModel)

NO_HEADERS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookServices:
    """The stores of endpoints and events. `masters`: None where no endpoint can be created."""

    endpoints: WebhookEndpointStore
    deliveries: WebhookDeliveryStore
    events: AccountEvents
    watch: EventWatch
    masters: Masters | None
    guard: Guard

    @classmethod
    def of(cls, database_url: str, *, masters: Masters | None, guard: Guard) -> WebhookServices:
        """Return the services on one database. Each store connects when it is first used."""
        watch = EventWatch(database_url)
        return cls(
            endpoints=WebhookEndpointStore(database_url),
            deliveries=WebhookDeliveryStore(database_url),
            events=AccountEvents(database_url, watch=watch),
            watch=watch,
            masters=masters,
            guard=guard,
        )

    async def aclose(self) -> None:
        """Close the stores."""
        await self.watch.aclose()
        await self.events.aclose()
        await self.deliveries.aclose()
        await self.endpoints.aclose()

    def needed_masters(self) -> Masters:
        """Return the masters. Raises a 503 Problem without them."""
        if self.masters is None:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "webhooks_not_configured",
                "this server has no OKANE_WEBHOOK_MASTER, from which the secrets of endpoints derive",
            )
        return self.masters

    async def state_of(self, request: web.Request) -> EndpointState:
        """Return the endpoint in a request's path. Raises a 404 Problem."""
        endpoint_id = endpoint_id_in(request)
        state = await self.endpoints.get(account_of(request), endpoint_id)
        if state is None:
            raise endpoint_not_found(endpoint_id)
        return state


def endpoint_id_in(request: web.Request) -> UUID:
    """Return the endpoint's id in a request's path. Raises a 404 Problem if it is not one."""
    text = request.match_info["endpoint_id"]
    try:
        return parse_endpoint_id(text)
    except ValueError:
        raise endpoint_not_found(text) from None


def endpoint_not_found(endpoint_id: UUID | str) -> Problem:
    """Return the 404 for an endpoint that the account does not have."""
    return Problem(HTTPStatus.NOT_FOUND, "endpoint_not_found", f"there is no endpoint {str(endpoint_id)[:64]!r}")


async def body_of(request: web.Request, model: type[M], *, optional: bool = False) -> M:
    """Return the body of a request. Raises a Problem; an `optional` one may be missing, as `{}`."""
    if optional and not request.can_read_body:
        return request_body.validate(model, {})
    request_body.check_media_type(request, JSON)
    body = await request_body.read_body(request, strict_json.MAX_BYTES)
    if optional and not body:  # a chunked one is seen to be empty only now
        return request_body.validate(model, {})
    return request_body.validate(model, strict_json.loads(body))


def json_answer(
    document: Mapping[str, Any], *, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] = NO_HEADERS
) -> web.Response:
    """Return the answer with this document."""
    return web.Response(status=status, body=json.dumps(document).encode(), content_type=JSON, headers=headers)
