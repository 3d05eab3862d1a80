"""The handler of the list of an endpoint's deliveries."""

from __future__ import annotations

import json

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from okane.api import query_parameters
from okane.api.access import account_of
from okane.api.payment_queries import documents, page_of
from okane.api.webhook_documents import delivery_document
from okane.api.webhook_services import WebhookServices, endpoint_id_in, endpoint_not_found
from okane.store.webhook_deliveries import Delivery, DeliveryState
from okane.store.webhook_events import FARTHEST, LoggedEvent


class DeliveryQuery(BaseModel):
    """The parameters of `GET /v1/webhook-endpoints/{id}/deliveries`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: query_parameters.Limit = 20
    after: query_parameters.PositionCursor | None = None
    state: frozenset[DeliveryState] = frozenset()


class EndpointDeliveries:
    """The handler of the list."""

    def __init__(self, services: WebhookServices) -> None:
        self._deliveries = services.deliveries

    async def list(self, request: web.Request) -> web.Response:
        """`GET /v1/webhook-endpoints/{id}/deliveries`: a page of its deliveries, those of the newest events first."""
        query = query_parameters.parse_query(DeliveryQuery, request.query)
        endpoint_id = endpoint_id_in(request)
        page = await self._deliveries.of_endpoint(
            account_of(request),
            endpoint_id,
            before=FARTHEST if query.after is None else query.after,
            limit=query.limit,
            states=query.state,
        )
        if page is None:
            raise endpoint_not_found(endpoint_id)
        listed = await documents(page.found, _document)
        reached = page.reached if len(listed) == len(page.found) else page.found[len(listed) - 1][1].position
        after = None if reached is None else query_parameters.position_cursor(reached)
        return page_of(request, "deliveries", f"[{','.join(listed)}]", after)


def _document(found: tuple[LoggedEvent, Delivery]) -> str:
    return json.dumps(delivery_document(*found))
