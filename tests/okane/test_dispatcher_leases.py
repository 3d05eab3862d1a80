"""The leases of a dispatcher at the moments in which something else happens: a stop, a second 410, a changed endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from uuid import UUID

import pytest

from okane.store.webhook_queues import EndpointChange, LeasedQueue
from tests.okane.dispatching import DispatchDesk, Running, change, dispatch_desk, payments, serves, until
from tests.okane.webhook_receiver import receiving


@pytest.fixture(name="desk")
async def make_desk(database_url: str) -> AsyncIterator[DispatchDesk]:
    async with receiving() as receiver, dispatch_desk(database_url, receiver) as desk:
        yield desk


async def passed(running: Running, position: int) -> bool:
    return running.dispatcher.feed.position >= position


async def test_events_of_a_type_that_was_just_subscribed_to_can_be_recovered(desk: DispatchDesk) -> None:
    """The queue has not read them, although the feed has passed them."""
    endpoint = await desk.endpoint()
    running = await desk.dispatch()
    await until(lambda: serves(running, 1))
    await change(desk.url, payments(3), type_="payment.canceled")
    await until(lambda: passed(running, 3))
    await desk.endpoints.change("default", endpoint.id, {"types": ["payment.*"]})
    await desk.deliveries.recover("default", endpoint.id, first=1, last=3, only_failed=True)
    await desk.receiver.until(3)
    await desk.at_rest()
    assert [one.type for one in desk.receiver.received] == ["payment.canceled"] * 3


async def test_a_410_that_comes_while_another_endpoint_is_disabled_is_not_forgotten(
    desk: DispatchDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("/first", "/second"):
        await desk.endpoint(path, account_id=path)
    running = await desk.dispatch()
    await until(lambda: serves(running, 2))
    first, second = running.dispatcher.queues
    disable = running.store.disable

    async def meanwhile(gone: Iterable[UUID]) -> Sequence[EndpointChange]:
        done = await disable(gone)
        if second.endpoint.id not in {one.endpoint_id for one in done} and not second.queue.is_gone:
            await change(desk.url, payments(1), account_id=second.endpoint.account_id)
            await until(is_gone)
        return done

    async def is_gone() -> bool:
        return second.queue.is_gone

    monkeypatch.setattr(running.store, "disable", meanwhile)
    desk.receiver.answers = 410
    await change(desk.url, payments(1), account_id=first.endpoint.account_id)
    await until(lambda: serves(running, 0))
    assert await desk.rows("DISTINCT status, disabled_reason", "webhook_endpoints") == [("disabled", "gone")]


async def test_a_queue_that_has_stopped_for_good_is_leased_anew_if_its_endpoint_is_enabled(desk: DispatchDesk) -> None:
    endpoint = await desk.endpoint()
    running = await desk.dispatch()
    await until(lambda: serves(running, 1))
    [served] = running.dispatcher.queues
    served.queue.stopped = served.queue.is_gone = True  # by a 410, and enabled again before the next look
    await desk.endpoints.change("default", endpoint.id, {"description": "enabled again"})
    await change(desk.url, payments(1))
    await desk.receiver.until(1)
    await desk.at_rest()
    assert served not in list(running.dispatcher.queues)


async def test_queues_that_are_leased_while_the_dispatcher_stops_do_not_hold_up_its_end(
    desk: DispatchDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await desk.dispatch()
    lease, asked, stopped = running.store.lease, asyncio.Event(), asyncio.Event()

    async def slow(limit: int) -> Sequence[LeasedQueue]:
        asked.set()
        await stopped.wait()
        return await lease(limit)

    monkeypatch.setattr(running.store, "lease", slow)
    await desk.endpoint()
    await asked.wait()
    await running.dispatcher.leases.stop()
    running.stop.set()
    stopped.set()
    await until(lambda: has_leased(desk))
    await asyncio.wait_for(running.task, 4.0)  # its drain is five seconds
    assert await desk.rows("owner, epoch", "webhook_queues") == [(None, 1)]


async def has_leased(desk: DispatchDesk) -> bool:
    return await desk.rows("epoch", "webhook_queues") == [(1,)]
