"""Requests that wait for a connection: none begins once its lease is over, or its endpoint was paused, deleted or changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import pytest

from okane.http.connection import HttpConnection
from okane.http.guard import Guard
from okane.http.guarded_url import GuardedUrl
from okane.store.webhook_endpoints import Endpoint
from okane.store.webhook_queues import LeaseRules
from okane.webhooks import keys
from okane.webhooks.sender import NOT_BEGUN, Sender
from okane.webhooks.sending import Sending
from okane.webhooks.served_queue import ServedQueue
from tests.flow.system import MASTER
from tests.okane.dispatching import DispatchDesk, Running, change, dispatch_desk, payments, until
from tests.okane.provider_server import answer, close, raw_server
from tests.okane.test_webhook_sender import BODY, EVENT_ID, MASTERS
from tests.okane.test_webhook_sender import Endpoint as Target
from tests.okane.webhook_receiver import receiving
from tests.okane.webhook_rows import fetch

LOOPBACK = (ip_network("127.0.0.0/8"),)


class SlowGuard(Guard):
    """A guard whose connections are made once `may_connect` is set."""

    def __init__(self) -> None:
        super().__init__(allow=LOOPBACK)
        self.asked = asyncio.Event()
        self.may_connect = asyncio.Event()

    async def connect(
        self, url: GuardedUrl, new_connection: Callable[[], HttpConnection], *, owner: str
    ) -> HttpConnection:
        self.asked.set()
        await self.may_connect.wait()
        return await super().connect(url, new_connection, owner=owner)


async def test_the_sender_asks_before_the_first_byte_and_keeps_the_connection() -> None:
    async with raw_server(answer(200)) as receiver:
        guard = SlowGuard()
        one, endpoint, may = Sender(guard, MASTERS), Target(f"{receiver.base_url}/hook"), [True]
        sending = asyncio.create_task(
            one.send(endpoint, EVENT_ID, BODY, now=datetime.now(UTC), may_begin=lambda: may[0])
        )
        await guard.asked.wait()
        may[0] = False
        guard.may_connect.set()
        assert await sending is NOT_BEGUN
        assert receiver.requests == []
        assert (await one.send(endpoint, EVENT_ID, BODY, now=datetime.now(UTC))).outcome == "delivered"
        assert (len(receiver.requests), guard.open_connections) == (1, 1)
        await one.aclose()


async def test_the_sender_asks_again_before_it_repeats_a_request_on_a_new_connection() -> None:
    async with raw_server(answer(200), close, answer(200)) as receiver:
        one, endpoint = Sender(Guard(allow=LOOPBACK), MASTERS), Target(f"{receiver.base_url}/hook")
        await one.send(endpoint, EVENT_ID, BODY, now=datetime.now(UTC))
        leave = iter((True, False))
        again = await one.send(endpoint, EVENT_ID, BODY, now=datetime.now(UTC), may_begin=lambda: next(leave))
        assert again is NOT_BEGUN
        assert len(receiver.requests) == 2
        await one.aclose()


async def test_a_sender_that_is_closed_meanwhile_begins_nothing_and_opens_nothing_later() -> None:
    async with raw_server(answer(200)) as receiver:
        guard = SlowGuard()
        one, endpoint = Sender(guard, MASTERS), Target(f"{receiver.base_url}/hook")
        sending = asyncio.create_task(one.send(endpoint, EVENT_ID, BODY, now=datetime.now(UTC)))
        await guard.asked.wait()
        await one.aclose()
        guard.may_connect.set()
        assert await sending is NOT_BEGUN
        assert await one.send(endpoint, EVENT_ID, BODY, now=datetime.now(UTC)) is NOT_BEGUN
        changed = replace(endpoint, version=2)
        assert await one.send(changed, EVENT_ID, BODY, now=datetime.now(UTC)) is NOT_BEGUN
        assert (receiver.connections, receiver.requests) == (0, [])


@pytest.fixture(name="desk")
async def make_desk(database_url: str) -> AsyncIterator[DispatchDesk]:
    async with receiving() as receiver, dispatch_desk(database_url, receiver) as desk:
        yield desk


async def waiting(desk: DispatchDesk, guard: SlowGuard) -> tuple[Running, Endpoint, ServedQueue]:
    """Run a dispatcher with one event that waits for its connection."""
    endpoint = await desk.endpoint()
    running = await desk.dispatch(guard=guard, rules=LeaseRules(lease=timedelta(seconds=1)))
    await change(desk.url, payments(1))
    await guard.asked.wait()
    [served] = running.dispatcher.queues
    assert served.queue.in_flight == 1
    return running, endpoint, served


async def ended(sending: Sending) -> bool:
    return sending.in_flight == 0


async def test_a_request_that_waits_for_its_connection_does_not_begin_after_the_lease(desk: DispatchDesk) -> None:
    guard = SlowGuard()
    running, _, served = await waiting(desk, guard)
    await fetch(desk.url, "UPDATE webhook_queues SET owner = 'another', epoch = epoch + 1")
    served.queue.lease.until_s = 0.0
    guard.may_connect.set()
    await until(lambda: ended(running.dispatcher.sending))
    assert desk.receiver.received == []
    assert served.queue.failures == 0
    # The next holder finds it open, without an attempt.
    await fetch(desk.url, "UPDATE webhook_queues SET owner = NULL, lease_until = now()")
    await desk.receiver.until(1)
    await desk.at_rest()
    assert len(desk.receiver.received) == 1
    assert await desk.rows("state, attempts") == [("delivered", 1)]


@pytest.mark.parametrize("how", ["deleted", "disabled"])
async def test_a_request_that_waits_for_its_connection_does_not_begin_once_its_endpoint_is(
    desk: DispatchDesk, how: str
) -> None:
    guard = SlowGuard()
    running, endpoint, served = await waiting(desk, guard)
    if how == "deleted":
        await desk.endpoints.delete("default", endpoint.id)
    else:
        await desk.endpoints.disable("default", endpoint.id, reason="requested")
    await until(lambda: left(served))
    guard.may_connect.set()
    await until(lambda: ended(running.dispatcher.sending))
    assert desk.receiver.received == []
    assert await desk.rows("state, attempts") == []
    if how == "disabled":
        await desk.endpoints.enable("default", endpoint.id, from_now=False)
        await desk.receiver.until(1)
        await desk.at_rest()
        assert await desk.rows("state, attempts") == [("delivered", 1)]


async def left(served: ServedQueue) -> bool:
    return served.is_leaving


async def test_a_request_that_waits_for_its_connection_is_signed_with_the_new_secret(desk: DispatchDesk) -> None:
    guard = SlowGuard()
    _, endpoint, _ = await waiting(desk, guard)
    rotated = await desk.endpoints.rotate("default", endpoint.id, older_valid_for=timedelta(0))
    assert rotated is not None
    await until(lambda: desk.endpoints.is_confirmed(rotated))
    desk.receiver.secrets["/hook"] = keys.secret(MASTER.encode(), endpoint.id, rotated.key_generation)
    guard.may_connect.set()
    await until(lambda: desk.has_rows(1))
    await desk.at_rest()
    assert len(desk.receiver.received) == 1  # which the standard's own library has verified
    assert await desk.rows("state, attempts") == [("delivered", 1)]
