"""The handlers of events: the log of an account by pages, one event as it is sent, its deliveries, and their repeat."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

import structlog
from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

from okane.api import payment_ids, query_parameters
from okane.api.access import account_of, require_scope
from okane.api.answer import JSON
from okane.api.event_waiting import EventWaiting, Told
from okane.api.long_polling import preferred_wait_s
from okane.api.payment_queries import documents
from okane.api.problems import Problem
from okane.api.query_parameters import EventCursor
from okane.api.webhook_documents import delivery_document
from okane.api.webhook_endpoints import log_change
from okane.api.webhook_requests import ENDPOINT_ID_SCHEMA, Pattern, RedeliverRequest, parse_endpoint_id
from okane.api.webhook_services import WebhookServices, body_of, endpoint_not_found, json_answer
from okane.api_key import Scope
from okane.payment_id import parse_id
from okane.store.account_events import AccountPage
from okane.store.webhook_deliveries import Redelivered
from okane.store.webhook_endpoints import Endpoint, Payload
from okane.store.webhook_events import EventRow
from okane.webhooks import payload
from okane.webhooks.types import API_VERSION, expand

log = structlog.get_logger("okane.api")

REDELIVERED_INTERVAL_S = 2.0  # between two looks at the events that are to be delivered again to a reader


def _payment(text: object) -> object:
    found = parse_id(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError("must be a payment's id")
    return found


class EventQuery(BaseModel):
    """The parameters of `GET /v1/events`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: query_parameters.Limit = query_parameters.MAX_LIMIT
    after: query_parameters.EventCursorText | None = None
    since: query_parameters.QueryTimestamp | None = None
    type: frozenset[Pattern] = frozenset()
    payment: Annotated[UUID, BeforeValidator(_payment), WithJsonSchema(payment_ids.ID)] | None = None
    endpoint: Annotated[UUID, BeforeValidator(parse_endpoint_id), WithJsonSchema(ENDPOINT_ID_SCHEMA)] | None = None


@dataclass(frozen=True, slots=True)
class BodyFormat:
    """The format of events that no endpoint has asked for."""

    payload: Payload = "snapshot"
    api_version: str = API_VERSION


@dataclass(frozen=True, slots=True)
class Found:
    """A page of events, and those that are delivered again to a reader: `read` names them."""

    page: AccountPage
    redelivered: Sequence[EventRow] = ()
    read: Redelivered | None = None

    @property
    def is_empty(self) -> bool:
        """True if there is nothing to answer yet."""
        return not (self.page.rows or self.page.has_more or self.redelivered)


class EventHandlers:
    """The handlers of events."""

    def __init__(self, services: WebhookServices) -> None:
        self._services = services
        self.waiting = EventWaiting(watch=services.watch)

    async def list(self, request: web.Request) -> web.Response:
        """`GET /v1/events`: a page of the account's events, oldest first; `Prefer: wait=N` waits for the next one.

        With `endpoint`, which must be the account's, the events are those of its types, and it counts as polled. What is
        delivered again to its reader is due until a cursor confirms that it was read: a lost answer loses nothing.
        """
        query = query_parameters.parse_query(EventQuery, request.query)
        account_id, wait_s = account_of(request), preferred_wait_s(request.headers)
        reader = None if query.endpoint is None else await self._polled(request, query.endpoint, query.after)
        types = query.type or (frozenset() if reader is None else frozenset(reader.types))
        after = await self._start(account_id, query)
        read = _Read(self._services, account_id, query, reader, sorted(expand(types)) if types else None)
        waiter: AbstractContextManager[Told | None] = (
            self.waiting.waiter(account_id) if wait_s else contextlib.nullcontext(None)
        )
        with waiter as told:
            found = await read.after(after)
            ends_s = time.monotonic() + (wait_s or 0)
            while found.is_empty and told is not None and (left_s := ends_s - time.monotonic()) > 0:
                pause_s = left_s if reader is None else min(left_s, REDELIVERED_INTERVAL_S)
                if not await self.waiting.until_told(request, told, wait_s=pause_s) and self.waiting.is_closed:
                    break
                told.clear()
                found = await read.after(found.page.after)
        return await self._answer(request, found, reader, wait_s)

    async def show(self, request: web.Request) -> web.Response:
        """`GET /v1/events/{id}`: the body of an event, as it is sent."""
        row = await self._event(request)
        return web.Response(body=payload.body(row, BodyFormat()), content_type=JSON)

    async def deliveries(self, request: web.Request) -> web.Response:
        """`GET /v1/events/{id}/deliveries`: the deliveries of an event, one for each endpoint that it was sent to."""
        row = await self._event(request)
        found = await self._services.deliveries.of_event(row.event.account_id, row.event.position)
        return json_answer({"deliveries": [delivery_document(row.event, delivery) for delivery in found]})

    async def redeliver(self, request: web.Request) -> web.Response:
        """`POST /v1/events/{id}/redeliver`: deliver an event to an endpoint again, delivered or not."""
        row = await self._event(request)
        wanted = (await body_of(request, RedeliverRequest)).endpoint
        state = await self._services.endpoints.get(row.event.account_id, wanted)
        due = await self._services.deliveries.redeliver(row.event.account_id, wanted, row.event.position)
        if state is None or due is None:
            raise endpoint_not_found(wanted)
        log_change("webhook_event_redelivered", request, state.endpoint, position=row.event.position)
        return json_answer({"delivery": delivery_document(row.event, due)}, status=HTTPStatus.ACCEPTED)

    async def _event(self, request: web.Request) -> EventRow:
        text = request.match_info["event_id"]
        row = await self._services.events.get(account_of(request), text)
        if row is None:
            raise Problem(HTTPStatus.NOT_FOUND, "event_not_found", f"there is no event {text[:64]!r}, or no more")
        return row

    async def _polled(self, request: web.Request, endpoint_id: UUID, after: EventCursor | None) -> Endpoint:
        require_scope(request, Scope.WEBHOOKS)  # it keeps the endpoint, and ends what it has read
        account_id = account_of(request)
        endpoint = await self._services.endpoints.poll(account_id, endpoint_id)
        if endpoint is None:
            raise endpoint_not_found(endpoint_id)
        if after is not None and after.read is not None:
            await self._services.deliveries.confirm_redelivered(account_id, endpoint_id, after.read)
        return endpoint

    async def _start(self, account_id: str, query: EventQuery) -> int:
        """Return the position after which the page begins."""
        after = 0 if query.after is None else query.after.position
        if query.since is None:
            return after
        found = await self._services.deliveries.range_between(account_id, query.since, None)
        since = await self._services.watch.last_position() if found is None else found[0] - 1
        return max(after, since)

    async def _answer(
        self, request: web.Request, found: Found, reader: Endpoint | None, wait_s: int | None
    ) -> web.Response:
        page = found.page
        listed = await documents(page.rows, _body)
        is_cut = len(listed) < len(page.rows)
        has_more = is_cut or page.has_more
        position = page.rows[len(listed) - 1].event.position if is_cut else page.after
        after = query_parameters.event_cursor(position, found.read)
        again = "" if reader is None else f',"redelivered":[{",".join(map(_body, found.redelivered))}]'
        body = (
            f'{{"events":[{",".join(listed)}],"has_more":{"true" if has_more else "false"},"after":"{after}"{again}}}'
        )
        headers = {} if wait_s is None else {"Preference-Applied": f"wait={wait_s}"}
        if has_more:
            others = [(key, value) for key, value in request.query.items() if key not in {"after", "since"}]
            headers["Link"] = f'<{request.path}?{urlencode([*others, ("after", after)])}>; rel="next"'
        return web.Response(body=body.encode(), content_type=JSON, headers=headers)


@dataclass(frozen=True, slots=True)
class _Read:
    """One request's reads of the log."""

    services: WebhookServices
    account_id: str
    query: EventQuery
    reader: Endpoint | None
    types: Sequence[str] | None

    async def after(self, position: int) -> Found:
        """Return the events after a position, and what is to be delivered again to the reader."""
        page = await self.services.events.page(
            self.account_id, after=position, limit=self.query.limit, types=self.types, payment_id=self.query.payment
        )
        if self.reader is None:
            return Found(page)
        again = await self.services.deliveries.redelivered(self.account_id, self.reader.id)
        if again is None:
            return Found(page)
        return Found(page, await self.services.events.get_many(self.account_id, again.positions), again)


def _body(row: EventRow) -> str:
    return payload.body(row, BodyFormat()).decode()
