"""The forwarder of `okane listen` over a scripted API: order per payment, repeats, and a place that skips nothing."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast
from uuid import UUID

import aiohttp
import pytest
import standardwebhooks
from aiohttp import web

from okane.cli.forwarding import TRIES, Back, Forwarded, Forwarder, Lost
from okane.client import Client, EventPage, NoAnswer, WebhookEvent
from okane.client.errors import refused

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
ENDPOINT = UUID("0198b2f0-0000-7000-8000-000000000000")
Report = Callable[..., Any]


def event(payment: int, version: int) -> WebhookEvent:
    payment_id = UUID(int=payment)
    return WebhookEvent.of(
        {
            "id": f"evt_{payment_id.hex}_{version}",
            "type": "payment.succeeded",
            "timestamp": "2026-11-22T01:19:53.796174Z",
            "api_version": "2026-12-01",
            "account": "a",
            "data": {"payment": {"id": str(payment_id), "version": version, "metadata": {"e": "\U0001f4b6é"}}},
        }
    )


@dataclass(slots=True)
class Pages:
    """The API: it returns these pages and raises these errors in turn. `asked` has the places."""

    script: list[EventPage | Exception]
    asked: list[str | None] = field(default_factory=list)
    limits: list[int] = field(default_factory=list)

    @property
    def webhooks(self) -> Pages:
        return self

    async def page(self, *, after: str | None, limit: int, **_other: object) -> EventPage:
        self.asked.append(after)
        self.limits.append(limit)
        found = self.script.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


def page(after: str, *events: WebhookEvent) -> EventPage:
    return EventPage(events=events, after=after, has_more=False)


@dataclass(slots=True)
class Receiver:
    """A receiver that verifies with the reference implementation. `answers`: by event, those before its 200."""

    answers: dict[str, list[int]] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    url: str = ""

    async def take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        found = cast("dict[str, Any]", standardwebhooks.Webhook(SECRET).verify(body, dict(request.headers)))
        self.bodies.append(body)
        self.seen.append(found["id"])
        left = self.answers.get(found["id"])
        status = left.pop(0) if left else 200
        if status == 0:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=status or 200, headers={"Location": "/other"} if status == 302 else None)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    one = Receiver()
    app = web.Application()
    app.router.add_post("/hook", one.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    one.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield one
    await runner.cleanup()


@dataclass(slots=True)
class Run:
    """A forwarder, and what it has reported."""

    forwarder: Forwarder
    reports: list[Forwarded | Lost | Back]

    def forwarded(self) -> Sequence[Forwarded]:
        return [one for one in self.reports if isinstance(one, Forwarded)]


@pytest.fixture
async def start(receiver: Receiver) -> AsyncIterator[Callable[[Pages], Run]]:
    async with aiohttp.ClientSession() as http:

        def begin(pages: Pages) -> Run:
            reports: list[Forwarded | Lost | Back] = []
            forwarder = Forwarder(
                cast("Client", pages),
                http,
                url=receiver.url,
                secret=SECRET,
                endpoint_id=ENDPOINT,
                after="p0",
                types=None,
                report=reports.append,
                max_pause_s=0.001,
            )
            return Run(forwarder, reports)

        yield begin


async def test_the_versions_of_a_payment_arrive_in_order_whatever_is_answered(
    start: Callable[[Pages], Run], receiver: Receiver
) -> None:
    events = [event(payment, version) for version in (2, 3, 4) for payment in range(10)]
    receiver.answers = {events[0].id: [500, 0, 503], events[11].id: [0, 0]}
    run = start(Pages([page("p1", *events)]))
    assert await run.forwarder.run_once(wait_s=0) == 30
    assert run.forwarder.after == "p1"
    for payment in range(10):
        mine = list(dict.fromkeys(one for one in receiver.seen if UUID(int=payment).hex in one))
        assert mine == [event(payment, version).id for version in (2, 3, 4)]
    assert len(receiver.seen) == 30 + 5


async def test_the_bytes_are_those_that_a_dispatcher_sends(start: Callable[[Pages], Run], receiver: Receiver) -> None:
    one = event(1, 2)
    await start(Pages([page("p1", one)])).forwarder.run_once(wait_s=0)
    [body] = receiver.bodies
    assert body == json.dumps(one.document, ensure_ascii=False, separators=(",", ":")).encode()
    assert "\U0001f4b6é".encode() in body


async def test_an_event_that_is_refused_again_and_again_is_skipped_in_sight(
    start: Callable[[Pages], Run], receiver: Receiver
) -> None:
    bad, good = event(1, 2), event(1, 3)
    receiver.answers = {bad.id: [302, 404, 500, 410, 400, 400]}
    run = start(Pages([page("p1", bad, good)]))
    await run.forwarder.run_once(wait_s=0)
    assert [one.status for one in run.forwarded()] == [302, 404, 500, 410, 400, 200]
    assert [one.is_skipped for one in run.forwarded()] == [False] * (TRIES - 1) + [True, False]


async def test_an_answer_that_does_not_come_is_waited_for_without_end(
    start: Callable[[Pages], Run], receiver: Receiver
) -> None:
    one = event(1, 2)
    receiver.answers = {one.id: [0] * (TRIES + 3)}
    run = start(Pages([page("p1", one)]))
    await run.forwarder.run_once(wait_s=0)
    assert [each.reason for each in run.forwarded()] == ["connection lost"] * (TRIES + 3) + [None]
    assert run.forwarded()[-1].attempt == TRIES + 4


async def test_a_lost_api_is_reported_once_and_read_from_the_same_place(start: Callable[[Pages], Run]) -> None:
    away = NoAnswer("GET /v1/events", "connection refused")
    pages = Pages([page("p1", event(1, 2)), away, refused(503, {}), away, page("p2", event(1, 3))])
    run = start(pages)
    for _ in range(2):
        await run.forwarder.run_once(wait_s=0)
    assert pages.asked == ["p0", "p1", "p1", "p1", "p1"]
    assert [type(one) for one in run.reports] == [Forwarded, Lost, Back, Forwarded]
    assert run.forwarder.after == "p2"


async def test_redelivered_events_arrive_also_those_that_come_while_a_page_waits(
    start: Callable[[Pages], Run], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("okane.cli.forwarding.KEEP_ALIVE_S", 0.01)
    first, later, slow = event(7, 2), event(8, 2), event(1, 2)
    receiver.answers = {slow.id: [0] * 1_000_000}
    pages = Pages([replace(page("p1", slow), redelivered=[first])])
    pages.script += [replace(page("p2"), redelivered=[later])] * 10_000
    run = start(pages)
    forwarding = asyncio.create_task(run.forwarder.run_once(wait_s=0))
    async with asyncio.timeout(30):
        while len(pages.asked) < 4:
            await asyncio.sleep(0.01)
    receiver.answers = {}
    await forwarding
    await run.forwarder.run_once(wait_s=0)
    assert [one for one in receiver.seen if one != slow.id] == [first.id, later.id]
    assert pages.asked[:-1] == ["p0"] * (len(pages.asked) - 1)  # nothing is confirmed before it was forwarded


async def test_a_final_refusal_of_the_api_ends_it(start: Callable[[Pages], Run]) -> None:
    run = start(Pages([refused(404, {"code": "endpoint_not_found"})]))
    with pytest.raises(type(refused(404, {"code": "endpoint_not_found"})), match="endpoint_not_found"):
        await run.forwarder.run_once(wait_s=0)
    assert run.forwarder.after == "p0"


async def test_the_place_stays_when_a_page_is_interrupted(
    start: Callable[[Pages], Run], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("okane.cli.forwarding.KEEP_ALIVE_S", 0.01)
    one = event(1, 2)
    receiver.answers = {one.id: [0] * 1_000_000}
    pages = Pages([page("p1", one), *[page("p1", one)] * 10_000])
    run = start(pages)
    forwarding = asyncio.create_task(run.forwarder.run_once(wait_s=0))
    async with asyncio.timeout(30):
        while len(pages.asked) < 3:  # the endpoint is kept while its page waits
            await asyncio.sleep(0.01)
    forwarding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await forwarding
    assert run.forwarder.after == "p0"
    assert (pages.limits[0], set(pages.limits[1:]), set(pages.asked)) == (100, {1}, {"p0"})
