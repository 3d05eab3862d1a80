"""Leases of endpoint queues in Postgres: epochs, takeovers, changes of endpoints, and the shares of dispatchers."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from okane.store.webhook_queues import LeaseRules, WebhookQueueStore
from tests.okane.webhook_desk import Desk, leased, make_desk  # noqa: F401 - a fixture
from tests.okane.webhook_rows import created


async def test_a_queue_is_leased_once(desk: Desk) -> None:
    endpoint = await created(desk.endpoints)
    [queue] = await desk.one.lease(10)
    assert (queue.endpoint, queue.epoch, queue.done_to) == (endpoint, 1, endpoint.starts_after)
    assert (queue.taken_over, queue.has_waiting, queue.has_replays) == (False, False, False)
    assert await desk.other.lease(10) == []
    assert await desk.endpoints.is_confirmed(endpoint)


async def test_two_dispatchers_take_different_queues(desk: Desk) -> None:
    made = {(await created(desk.endpoints, f"account {number}")).id for number in range(8)}
    first, second = await asyncio.gather(desk.one.lease(4), desk.other.lease(4))
    assert {queue.endpoint.id for queue in (*first, *second)} == made


async def test_an_expired_lease_is_taken_over_under_a_new_epoch(desk: Desk) -> None:
    await leased(desk)
    await desk.let_pass("11 s")
    [queue] = await desk.other.lease(10)
    assert (queue.epoch, queue.taken_over) == (2, True)
    assert (await desk.one.renew(idle_to=0, idle=()), await desk.one.owned()) == (0, {})


async def test_a_released_queue_is_no_takeover(desk: Desk) -> None:
    queue = await leased(desk)
    await desk.other.release([queue.endpoint.id])
    assert await desk.other.lease(10) == []
    await desk.one.release([queue.endpoint.id])
    [again] = await desk.other.lease(10)
    assert (again.epoch, again.taken_over) == (2, False)


async def test_a_renewed_lease_holds(desk: Desk) -> None:
    queue = await leased(desk)
    await desk.let_pass("6 s")
    assert await desk.one.renew(idle_to=0, idle=()) == 1
    await desk.let_pass("6 s")
    assert await desk.other.lease(10) == []
    assert await desk.one.owned() == {queue.endpoint.id: 1}


async def test_the_place_of_an_idle_queue_moves_with_the_renewal(desk: Desk) -> None:
    """Of no other: the owner may not know that it has one, since the answer to its lease was lost."""
    await leased(desk)
    idle = (await leased(desk, account_id="other")).endpoint.id
    await desk.one.renew(idle_to=70, idle=[idle])
    await desk.one.renew(idle_to=60, idle=[idle])
    assert sorted(await desk.rows(f"done_to, endpoint_id = '{idle}'", "webhook_queues")) == [
        (0, False),
        (70, True),
    ]


@pytest.mark.parametrize("state", ["disabled", "deleted", "no url"])
async def test_an_endpoint_that_receives_nothing_is_not_leased(desk: Desk, state: str) -> None:
    endpoint = await created(desk.endpoints, url=None if state == "no url" else "https://shop.example/hook")
    if state == "disabled":
        await desk.endpoints.disable("default", endpoint.id, reason="maintenance")
    elif state == "deleted":
        await desk.endpoints.delete("default", endpoint.id)
    assert await desk.one.lease(10) == []
    assert (await desk.one.share()).queues == 0


async def test_the_owner_confirms_a_change(desk: Desk) -> None:
    queue = await leased(desk)
    assert await desk.one.changed() == []
    changed = await desk.endpoints.change("default", queue.endpoint.id, {"max_in_flight": 3})
    assert changed is not None
    assert not await desk.endpoints.is_confirmed(changed)
    assert await desk.one.changed() == [(changed, 1)]
    await desk.other.confirm({changed.id: changed.version})
    assert await desk.one.changed() == [(changed, 1)]
    await desk.one.confirm({changed.id: changed.version})
    assert await desk.one.changed() == []
    assert await desk.endpoints.is_confirmed(changed)


async def test_a_deletion_ends_when_the_owner_has_confirmed_it(desk: Desk) -> None:
    queue = await leased(desk)
    deleted = await desk.endpoints.delete("default", queue.endpoint.id)
    assert deleted is not None
    assert not await desk.endpoints.finish_delete(deleted)
    [(seen, _)] = await desk.one.changed()
    assert seen.status == "deleted"
    await desk.one.confirm({seen.id: seen.version})
    assert await desk.endpoints.finish_delete(deleted)


async def test_dispatchers_count_one_another_and_orphans(desk: Desk) -> None:
    await leased(desk)
    await created(desk.endpoints, "other")
    await desk.other.share()
    share = await desk.one.share()
    assert (share.queues, share.orphans, share.dispatchers) == (2, 0, 2)
    await desk.let_pass("1 s")
    assert (await desk.one.share()).orphans == 0
    await desk.let_pass("3 s")
    assert (await desk.one.share()).orphans == 1  # the new one, which no dispatcher has taken
    await desk.let_pass("5 s")
    assert (await desk.one.share()).orphans == 1
    await desk.let_pass("5 s")
    assert (await desk.one.share()).orphans == 2


async def test_a_released_queue_is_an_orphan_after_a_while(desk: Desk) -> None:
    queue = await leased(desk)
    await desk.let_pass("1 min")
    await desk.one.release([queue.endpoint.id])
    assert (await desk.other.share()).orphans == 0
    await desk.let_pass("4 s")
    assert (await desk.other.share()).orphans == 1


async def test_a_dispatcher_that_leaves_does_not_count(desk: Desk) -> None:
    await desk.other.share()
    assert (await desk.one.share()).dispatchers == 2
    await desk.one.resign()
    assert (await desk.other.share()).dispatchers == 1
    assert (await desk.one.share()).dispatchers == 1
    await desk.other.resign()
    assert (await desk.one.share()).dispatchers == 1  # a share is a part of something
    await desk.one.aclose()
    await desk.one.share()  # over a new connection
    assert (await desk.other.share()).dispatchers == 1


async def test_a_stopped_dispatcher_does_not_count(desk: Desk, database_url: str) -> None:
    await desk.other.share()
    impatient = WebhookQueueStore(database_url, owner="three", rules=LeaseRules(silent=timedelta(milliseconds=1)))
    await impatient.share()
    await asyncio.sleep(0.01)
    assert (await impatient.share()).dispatchers == 1
    await impatient.aclose()
