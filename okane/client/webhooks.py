"""The account's webhook endpoints, and the log of its events: one method per route.

Guarantee: `follow` yields every event after its place, in the order of the log; a lost answer skips none.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypedDict, Unpack
from uuid import UUID

from okane.client import arguments
from okane.client.errors import NotFound
from okane.client.transport import Transport
from okane.client.values import Document
from okane.client.webhook_values import (
    CreatedEndpoint,
    Delivery,
    DeliveryPage,
    Endpoint,
    EndpointSecrets,
    EventPage,
    TestAnswer,
    WebhookEvent,
)

_ENDPOINTS = "/v1/webhook-endpoints"
_EVENTS = "/v1/events"
_LONGEST_WAIT_S = 25


class EndpointChange(TypedDict, total=False):
    """The members of an endpoint that can be changed."""

    url: str
    types: Sequence[str]
    description: str
    max_in_flight: int
    rate_limit: int | None
    timeout_s: int
    hold_s: int
    asymmetric: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEndpoint:
    """An endpoint to create. Members that are None have the API's defaults.

    An endpoint without `url` receives nothing: its account's events are recorded, for `events` and `follow`.
    """

    url: str | None
    types: Sequence[str] | None = None
    payload: str | None = None
    description: str | None = None
    max_in_flight: int | None = None
    rate_limit: int | None = None
    timeout_s: int | None = None
    hold_s: int | None = None
    asymmetric: bool | None = None

    def document(self) -> Document:
        """Return the JSON document, without the members that are not set. Raises TypeError, ValueError."""
        members = {
            "types": self.types,
            "payload": self.payload,
            "description": self.description,
            "max_in_flight": self.max_in_flight,
            "rate_limit": self.rate_limit,
            "timeout_s": self.timeout_s,
            "hold_s": self.hold_s,
            "asymmetric": self.asymmetric,
        }
        given = {name: value for name, value in members.items() if value is not None}
        return {"url": None if self.url is None else arguments.text("url", self.url), **_checked(given)}


class Webhooks:
    """Manages endpoints (scope `webhooks`) and reads events (scope `read`). It belongs to a `Client`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def endpoints(self) -> Sequence[Endpoint]:
        """Return the endpoints of the account."""
        return [Endpoint.of(one) for one in (await self._transport.send("GET", _ENDPOINTS))["endpoints"]]

    async def endpoint(self, endpoint_id: UUID | str) -> Endpoint:
        """Return one endpoint with its state. Raises NotFound."""
        return Endpoint.of((await self._transport.send("GET", _endpoint(endpoint_id)))["endpoint"])

    async def create(self, new: NewEndpoint) -> CreatedEndpoint:
        """Create an endpoint; its account's changes from now on reach it. Not repeated if its answer is lost: list first."""
        body = arguments.typed("new", new, NewEndpoint).document()
        made = await self._transport.send("POST", _ENDPOINTS, body=body, repeatable=False)
        return CreatedEndpoint(Endpoint.of(made["endpoint"]), made["secret"])

    async def change(self, endpoint_id: UUID | str, **members: Unpack[EndpointChange]) -> Endpoint:
        """Change members of an endpoint; return it as it is then."""
        body = _checked(members)
        return Endpoint.of((await self._transport.send("PATCH", _endpoint(endpoint_id), body=body))["endpoint"])

    async def delete(self, endpoint_id: UUID | str) -> None:
        """Delete an endpoint. No request to it begins after this returned; if an answer was lost, after 10 s more."""
        await self.endpoint(endpoint_id)
        # There was one: it was deleted by this request, whose answer was lost. aiohttp, too, repeats a DELETE.
        with contextlib.suppress(NotFound):
            await self._transport.send("DELETE", _endpoint(endpoint_id))

    async def rotate(self, endpoint_id: UUID | str, *, older_valid_for: timedelta | None = None) -> CreatedEndpoint:
        """Give the endpoint a new secret; return it. The older one also signs, for 24 h unless `older_valid_for` is given.

        Not repeated when the answer is lost: `secrets` shows the one that is valid.
        """
        body = {} if older_valid_for is None else {"older_valid_for": _duration("older_valid_for", older_valid_for)}
        path = _endpoint(endpoint_id, "/rotate")
        made = await self._transport.send("POST", path, body=body, repeatable=False)
        return CreatedEndpoint(Endpoint.of(made["endpoint"]), made["secret"])

    async def secrets(self, endpoint_id: UUID | str) -> EndpointSecrets:
        """Return the secrets that verify the endpoint's requests (scope `operate`)."""
        return EndpointSecrets.of(await self._transport.send("GET", _endpoint(endpoint_id, "/secret")))

    async def test(self, endpoint_id: UUID | str) -> TestAnswer:
        """Send `webhook_endpoint.test` now; return the endpoint's answer."""
        path = _endpoint(endpoint_id, "/test")
        return TestAnswer.of(await self._transport.send("POST", path, body={}, repeatable=False))

    async def enable(self, endpoint_id: UUID | str, *, from_now: bool = False) -> Endpoint:
        """Enable an endpoint. It resumes at its place in the log, or at the end: `from_now` skips what it missed."""
        body = {"from": "now"} if arguments.typed("from_now", from_now, bool) else {}
        path = _endpoint(endpoint_id, "/enable")
        return Endpoint.of((await self._transport.send("POST", path, body=body))["endpoint"])

    async def disable(self, endpoint_id: UUID | str) -> Endpoint:
        """Pause an endpoint. Its place in the log is kept."""
        path = _endpoint(endpoint_id, "/disable")
        return Endpoint.of((await self._transport.send("POST", path, body={}))["endpoint"])

    async def recover(
        self,
        endpoint_id: UUID | str,
        *,
        since: datetime,
        until: datetime | None = None,
        only_failed: bool = True,
    ) -> int:
        """Deliver events of a time again: those that are not delivered, or all. Return how many the time has."""
        body: dict[str, Any] = {
            "since": arguments.moment("since", since),
            "only_failed": arguments.typed("only_failed", only_failed, bool),
        }
        if until is not None:
            body["until"] = arguments.moment("until", until)
        path = _endpoint(endpoint_id, "/recover")
        return int((await self._transport.send("POST", path, body=body, repeatable=False))["events"])

    async def redeliver(self, event_id: str, *, endpoint_id: UUID | str) -> None:
        """Deliver one event to one endpoint again, even if it was delivered."""
        body = {"endpoint": str(arguments.endpoint_id(endpoint_id))}
        await self._transport.send("POST", _event(event_id, "/redeliver"), body=body)

    async def deliveries(self, event_id: str) -> Sequence[Delivery]:
        """Return the deliveries of an event: every endpoint, with its attempts."""
        return [
            Delivery.of(one)
            for one in (await self._transport.send("GET", _event(event_id, "/deliveries")))["deliveries"]
        ]

    async def endpoint_deliveries(
        self, endpoint_id: UUID | str, *, after: str | None = None, states: Iterable[str] = (), limit: int = 100
    ) -> DeliveryPage:
        """Return up to `limit` deliveries of an endpoint (scope `webhooks`), those of the newest events first.

        With `states` (`delivered`, `waiting`, `given_up`) a page may be short or empty although there are more: go on until
        `after` is None.
        """
        query = [("limit", str(arguments.typed("limit", limit, int)))]
        query += [("state", arguments.text("states", one)) for one in arguments.several("states", states)]
        if after is not None:
            query.append(("after", arguments.text("after", after)))
        found = await self._transport.send("GET", _endpoint(endpoint_id, "/deliveries"), query=query)
        return DeliveryPage([Delivery.of(one) for one in found["deliveries"]], found["after"])

    async def event(self, event_id: str) -> WebhookEvent:
        """Return one event, as it is sent. Raises NotFound."""
        return WebhookEvent.of(await self._transport.send("GET", _event(event_id)))

    def events(
        self, *, after: str | None = None, types: Iterable[str] | None = None, payment_id: UUID | str | None = None
    ) -> AsyncIterator[WebhookEvent]:
        """Iterate over the events of the log from a place (None: its beginning) to its end, oldest first."""
        query = _filter(types, payment_id) + ([] if after is None else [("after", arguments.text("after", after))])
        return self._transport.pages(_EVENTS, "events", WebhookEvent.of, query)

    async def page(
        self,
        *,
        after: str | None = None,
        since: datetime | None = None,
        types: Iterable[str] | None = None,
        payment_id: UUID | str | None = None,
        endpoint_id: UUID | str | None = None,
        limit: int = 100,
        wait_s: int = 0,
    ) -> EventPage:
        """Return up to `limit` events after a place, or from a time on. With `wait_s` wait if there is none yet.

        With the id of an endpoint without a URL the page also has what was redelivered to it, until a page is read from its
        `after` on. Such an endpoint is deleted an hour after its last poll.
        """
        query = [*_filter(types, payment_id), ("limit", str(arguments.typed("limit", limit, int)))]
        if after is not None:
            query.append(("after", arguments.text("after", after)))
        if since is not None:
            query.append(("since", arguments.moment("since", since)))
        if endpoint_id is not None:
            query.append(("endpoint", str(arguments.endpoint_id(endpoint_id))))
        found = await self._transport.send("GET", _EVENTS, query=query, wait_s=wait_s)
        return EventPage(
            events=[WebhookEvent.of(one) for one in found["events"]],
            after=found["after"],
            has_more=found["has_more"],
            redelivered=[WebhookEvent.of(one) for one in found.get("redelivered", ())],
        )

    async def follow(
        self, *, after: str | None = None, types: Iterable[str] | None = None, payment_id: UUID | str | None = None
    ) -> AsyncIterator[EventPage]:
        """Iterate over the pages after a place (None: the beginning of the log), and wait for the next events for ever.

        Keep the `after` of a page once its events are handled: a new `follow` goes on from there.
        """
        chosen = None if types is None else list(arguments.several("types", types))
        while True:
            page = await self.page(after=after, types=chosen, payment_id=payment_id, wait_s=_LONGEST_WAIT_S)
            after = page.after
            if page.events:
                yield page


def _filter(types: Iterable[str] | None, payment_id: UUID | str | None) -> list[tuple[str, str]]:
    pairs = (
        [] if types is None else [("type", arguments.text("types", one)) for one in arguments.several("types", types)]
    )
    return pairs if payment_id is None else [*pairs, ("payment", str(arguments.payment_id(payment_id)))]


def _endpoint(endpoint_id: UUID | str, of_it: str = "") -> str:
    return f"{_ENDPOINTS}/{arguments.endpoint_id(endpoint_id)}{of_it}"


def _event(event_id: str, of_it: str = "") -> str:
    return f"{_EVENTS}/{arguments.event_id(event_id)}{of_it}"


def _duration(name: str, value: timedelta) -> str:
    return f"{arguments.seconds(name, arguments.typed(name, value, timedelta).total_seconds()):.0f}s"


_CHECKS: Mapping[str, Any] = {
    "url": lambda value: arguments.text("url", value),
    "types": lambda value: [arguments.text("types", one) for one in arguments.several("types", value)],
    "payload": lambda value: arguments.text("payload", value),
    "description": lambda value: arguments.text("description", value),
    "asymmetric": lambda value: arguments.typed("asymmetric", value, bool),
    "rate_limit": lambda value: None if value is None else arguments.typed("rate_limit", value, int),
    **{
        name: lambda value, name=name: arguments.typed(name, value, int)
        for name in ("max_in_flight", "timeout_s", "hold_s")
    },
}


def _checked(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members as JSON has them. Raises TypeError for an unknown one or a wrong type, ValueError for a value."""
    for name in members:
        if name not in _CHECKS:
            raise TypeError(f"an endpoint has no member {name!r}; it has {', '.join(_CHECKS)}")
    return {name: _CHECKS[name](value) for name, value in members.items()}
