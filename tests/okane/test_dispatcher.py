"""A dispatcher over real Postgres and a real receiver: order, retries, outages, changed endpoints, takeovers, its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from aiohttp import web

from okane.http.guard import Guard
from okane.store.webhook_queues import LeaseRules, WebhookQueueStore
from okane.webhooks import keys
from okane.webhooks.breaker import Circuit
from okane.webhooks.served_queue import ServedQueue
from tests.flow.system import MASTER
from tests.okane.dispatching import (
    DispatchDesk,
    Running,
    arrived,
    change,
    dispatch_desk,
    payments,
    retry_late,
    serves,
    until,
)
from tests.okane.webhook_receiver import Received, receiving
from tests.okane.webhook_rows import fetch


@pytest.fixture(name="desk")
async def make_desk(database_url: str) -> AsyncIterator[DispatchDesk]:
    async with receiving() as receiver, dispatch_desk(database_url, receiver) as desk:
        yield desk


async def test_every_event_arrives_signed_and_in_order(desk: DispatchDesk) -> None:
    await desk.endpoint()
    await desk.dispatch()
    ids = payments(20)
    for version in range(1, 6):
        await change(desk.url, ids, version=version)
    await desk.receiver.until(100)
    await desk.at_rest()
    assert desk.receiver.versions() == {str(one): [1, 2, 3, 4, 5] for one in ids}
    assert len(desk.receiver.received) == 100
    assert not desk.receiver.overlaps
    assert await desk.rows("DISTINCT state, attempts, status") == [("delivered", 1, 200)]


async def test_a_failed_event_is_tried_again_and_holds_back_its_payment_only(
    desk: DispatchDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    retry_late(monkeypatch)
    endpoint = await desk.endpoint()
    slow, quick = payments(2)
    refused: list[str] = []

    def answer(one: Received) -> web.Response:
        if one.payment == str(slow) and len(refused) < 1:
            refused.append(one.id)
            return web.Response(status=500, text="not today")
        return web.Response()

    desk.receiver.answers = answer
    await desk.dispatch()
    for version in (1, 2):
        await change(desk.url, [slow, quick], version=version)
    await until(lambda: desk.has_rows(4))
    assert desk.receiver.versions()[str(quick)] == [1, 2]
    assert desk.receiver.versions()[str(slow)] == [1]
    assert set(await desk.rows("attempts, state, reason, next_at IS NULL")) == {
        (0, "waiting", "held", False),
        (1, "delivered", None, True),
        (1, "waiting", "status_5xx\nnot today", False),
    }
    await fetch(desk.url, "UPDATE webhook_deliveries SET next_at = now() WHERE ms IS NOT NULL AND next_at IS NOT NULL")
    await desk.wake(endpoint)
    await desk.at_rest()
    assert [one.version for one in desk.receiver.received if one.payment == str(slow)] == [1, 1, 2]


async def test_an_outage_of_the_receiver_costs_events_at_most_one_attempt(desk: DispatchDesk) -> None:
    await desk.endpoint(max_in_flight=5)
    desk.receiver.answers = 503
    running = await desk.dispatch()
    await change(desk.url, payments(60))
    await desk.receiver.until(5)
    [served] = running.dispatcher.queues
    await until(lambda: has_opened(served))
    await desk.receiver.until(len(desk.receiver.received) + 2)  # two probes
    assert served.queue.breaker.state is Circuit.OPEN
    desk.receiver.answers = 200
    await desk.receiver.until_ids(60)
    await until(lambda: desk.has_rows(60))
    [(failed,)] = await fetch(desk.url, "SELECT count(*) FROM webhook_deliveries WHERE status = 503 OR attempts > 1")
    assert failed <= 5 + 4  # those of the five that failed first were followed by four
    assert running.count("okane_webhook_requests_total", outcome="delivered") >= 60 - failed


async def has_opened(served: ServedQueue) -> bool:
    """Return True if the breaker is open, and no request is in flight that began before."""
    return served.queue.breaker.state is Circuit.OPEN and served.queue.in_flight == 0


async def test_an_endpoint_that_never_answers_delays_no_other(desk: DispatchDesk) -> None:
    hung = asyncio.Event()

    async def answer(one: Received) -> web.Response:
        if one.path == "/dead":
            await hung.wait()
        return web.Response()

    desk.receiver.answers = answer
    await desk.endpoint("/dead", max_in_flight=64)
    await desk.endpoint("/hook")
    await desk.dispatch()
    await change(desk.url, payments(300))
    await until(lambda: arrived(desk, "/hook", 300))
    assert desk.receiver.most_in_flight["/dead"] == 64
    hung.set()
    await desk.at_rest()


async def test_a_queue_without_room_reads_its_own_backlog(desk: DispatchDesk) -> None:
    await desk.endpoint(max_in_flight=4)
    running = await desk.dispatch()
    await until(lambda: serves(running, 1))
    ids = payments(700)
    await change(desk.url, ids, version=1)
    await change(desk.url, ids, version=2)
    await desk.receiver.until(1400)
    await desk.at_rest()
    assert len(desk.receiver.received) == 1400
    assert set(map(tuple, desk.receiver.versions().values())) == {(1, 2)}
    assert not running.dispatcher.queues.behind


async def test_only_events_that_were_subscribed_to_arrive(desk: DispatchDesk) -> None:
    await desk.endpoint(types=("payment.failed",))
    await desk.endpoint("/other", account_id="other", types=("payment.*",))
    await desk.dispatch()
    await change(desk.url, payments(5), type_="payment.failed")
    await change(desk.url, payments(5), type_="payment.succeeded")
    await change(desk.url, payments(5), account_id="other")
    await desk.receiver.until(10)
    await desk.at_rest()
    assert {(one.path, one.type) for one in desk.receiver.received} == {
        ("/hook", "payment.failed"),
        ("/other", "payment.succeeded"),
    }


async def test_a_disabled_endpoint_is_paused_and_resumes_at_its_place(desk: DispatchDesk) -> None:
    endpoint = await desk.endpoint()
    running = await desk.dispatch()
    await change(desk.url, payments(3))
    await desk.receiver.until(3)
    disabled = await desk.endpoints.disable("default", endpoint.id, reason="maintenance")
    assert disabled is not None
    await until(lambda: desk.endpoints.is_confirmed(disabled))
    await until(lambda: serves(running, 0))
    await change(desk.url, payments(4))
    await until(lambda: logged(desk, 7))
    assert len(desk.receiver.received) == 3
    await desk.endpoints.enable("default", endpoint.id, from_now=False)
    await desk.receiver.until(7)
    await desk.at_rest()


async def test_an_endpoint_that_resumes_at_the_end_gets_only_new_events(desk: DispatchDesk) -> None:
    endpoint = await desk.endpoint()
    running = await desk.dispatch()
    await until(lambda: serves(running, 1))
    await desk.endpoints.disable("default", endpoint.id, reason="maintenance")
    await until(lambda: serves(running, 0))
    await change(desk.url, payments(4))
    await until(lambda: logged(desk, 4))
    await desk.endpoints.enable("default", endpoint.id, from_now=True)
    [late] = payments(1)
    await change(desk.url, [late])
    await desk.at_rest()
    assert [one.payment for one in desk.receiver.received] == [str(late)]


async def logged(desk: DispatchDesk, count: int) -> bool:
    return (await desk.rows("count(*)", "webhook_events"))[0][0] == count


async def test_a_deleted_endpoint_gets_nothing_after_the_confirmation(desk: DispatchDesk) -> None:
    endpoint = await desk.endpoint(rate_limit=10)  # the deletion comes long before the last event
    await desk.dispatch()
    await change(desk.url, payments(200))
    await desk.receiver.until(10)
    deleted = await desk.endpoints.delete("default", endpoint.id)
    assert deleted is not None
    await until(lambda: desk.endpoints.finish_delete(deleted))
    count = len(desk.receiver.received)
    await change(desk.url, payments(20))
    await asyncio.sleep(0.2)
    assert len(desk.receiver.received) == count < 200


async def test_410_disables_at_once_and_the_other_endpoint_learns_of_it(desk: DispatchDesk) -> None:
    endpoint = await desk.endpoint("/gone")
    await desk.endpoint("/other", types=("webhook_endpoint.*",))
    desk.receiver.answers = lambda one: web.Response(status=410 if one.path == "/gone" else 200)
    running = await desk.dispatch()
    await change(desk.url, payments(1))
    await until(lambda: arrived(desk, "/other", 1))
    state = await desk.endpoints.get("default", endpoint.id)
    assert state is not None
    assert (state.endpoint.status, state.endpoint.disabled_reason) == ("disabled", "gone")
    await until(lambda: serves(running, 1))
    assert state.backlog == 1
    assert [(one.path, one.type) for one in desk.receiver.received] == [
        ("/gone", "payment.succeeded"),
        ("/other", "webhook_endpoint.disabled"),
    ]


async def test_a_changed_url_and_secret_count_from_the_next_request(desk: DispatchDesk) -> None:
    endpoint = await desk.endpoint()
    await desk.dispatch()
    await change(desk.url, payments(1))
    await desk.receiver.until(1)
    await desk.endpoints.change("default", endpoint.id, {"url": f"{desk.receiver.url}/new"})
    rotated = await desk.endpoints.rotate("default", endpoint.id, older_valid_for=timedelta(0))
    assert rotated is not None
    desk.receiver.secrets["/new"] = keys.secret(MASTER.encode(), endpoint.id, rotated.key_generation)
    await until(lambda: desk.endpoints.is_confirmed(rotated))
    await change(desk.url, payments(1))
    await desk.receiver.until(2)
    assert [one.path for one in desk.receiver.received] == ["/hook", "/new"]
    await desk.at_rest()


async def test_a_delivered_event_is_sent_again_on_request(desk: DispatchDesk) -> None:
    endpoint = await desk.endpoint()
    await desk.dispatch()
    await change(desk.url, payments(2))
    await desk.receiver.until(2)
    await desk.at_rest()
    await desk.deliveries.redeliver("default", endpoint.id, 1)
    await desk.receiver.until(3)
    await desk.at_rest()
    first, again = (one for one in desk.receiver.received if one.id == desk.receiver.received[2].id)
    assert first.body == again.body


@pytest.mark.parametrize("only_failed", [True, False])
async def test_a_range_is_recovered(desk: DispatchDesk, only_failed: bool) -> None:
    endpoint = await desk.endpoint()
    await desk.dispatch()
    await change(desk.url, payments(300))
    await desk.receiver.until(300)
    await desk.at_rest()
    await fetch(desk.url, "UPDATE webhook_deliveries SET state = 'given_up' WHERE position BETWEEN 11 AND 20")
    await desk.deliveries.recover("default", endpoint.id, first=5, last=290, only_failed=only_failed)
    await desk.receiver.until(310 if only_failed else 586)
    await desk.at_rest()
    assert len(desk.receiver.received) == (310 if only_failed else 586)
    assert await desk.rows("DISTINCT state") == [("delivered",)]


async def test_two_dispatchers_share_the_queues(desk: DispatchDesk) -> None:
    for number in range(6):
        await desk.endpoint(f"/{number}", account_id=f"account {number}")
    first = await desk.dispatch()
    await until(lambda: serves(first, 6))
    second = await desk.dispatch()
    await until(lambda: serves(second, 3))
    assert len(first.dispatcher.queues) == 3
    for number in range(6):
        await change(desk.url, payments(20), account_id=f"account {number}")
    await desk.receiver.until(120)
    await desk.at_rest()
    assert len(desk.receiver.received) == 120


async def test_a_dispatcher_that_ends_releases_its_queues_and_repeats_nothing(desk: DispatchDesk) -> None:
    await desk.endpoint(max_in_flight=4)
    running = await desk.dispatch()
    await change(desk.url, payments(200))
    await desk.receiver.until(20)
    await running.end()
    assert await desk.rows("owner, lease_until < now()", "webhook_queues") == [(None, True)]
    other = await desk.dispatch()
    await desk.receiver.until(200)
    await desk.at_rest()
    assert len(desk.receiver.received) == 200
    assert other.count("okane_webhook_takeovers_total") == 0


async def test_while_a_dispatcher_ends_the_other_serves_all_that_it_has_left(desk: DispatchDesk) -> None:
    for number in range(4):
        await desk.endpoint(f"/{number}", account_id=f"account {number}")
    rules = LeaseRules(orphaned=timedelta(hours=1))
    first = await desk.dispatch(rules=rules)
    await until(lambda: serves(first, 4))
    hung = asyncio.Event()

    async def answer(_: Received) -> web.Response:
        await hung.wait()
        return web.Response()

    desk.receiver.answers = answer
    await change(desk.url, payments(1), account_id="account 0")
    await desk.receiver.until(1)
    first.stop.set()
    second = await desk.dispatch(rules=rules)
    await until(lambda: serves(second, 3), within_s=3.0)
    assert not first.task.done()
    hung.set()
    await until(lambda: serves(second, 4))


async def test_queues_that_a_living_dispatcher_does_not_take_are_served_by_the_other(desk: DispatchDesk) -> None:
    """One that hangs between two statements counts, and has its share."""
    for number in range(4):
        await desk.endpoint(f"/{number}", account_id=f"account {number}")
    rules = LeaseRules(orphaned=timedelta(milliseconds=100))
    hanging = WebhookQueueStore(desk.url, owner="hanging")
    await hanging.share()
    running = await desk.dispatch(rules=rules)
    await until(lambda: serves(running, 4))
    assert running.dispatcher.leases.share.dispatchers == 2
    looked_s = running.dispatcher.leases.share.now_s
    await until(lambda: has_looked(running, after_s=looked_s + 0.3))
    assert len(running.dispatcher.queues) == 4  # it does not give them back at once
    await hanging.aclose()


async def test_after_a_death_the_next_dispatcher_goes_on_within_the_lease(desk: DispatchDesk) -> None:
    await desk.endpoint(max_in_flight=4)
    orphaned = timedelta(milliseconds=100)
    running = await desk.dispatch(rules=LeaseRules(lease=timedelta(seconds=1), orphaned=orphaned))
    ids = payments(200)
    await change(desk.url, ids)
    await desk.receiver.until(20)
    await running.die()
    await change(desk.url, ids, version=3)
    other = await desk.dispatch(rules=LeaseRules(orphaned=orphaned))  # it keeps its own lease on a busy machine, too
    await desk.receiver.until_ids(400)
    await desk.at_rest()
    assert set(map(tuple, desk.receiver.versions().values())) == {(2, 3)}
    assert other.count("okane_webhook_takeovers_total") == 1


async def test_a_new_owner_keeps_the_order_behind_a_failed_event(
    desk: DispatchDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    retry_late(monkeypatch)
    await desk.endpoint()
    desk.receiver.answers = 500
    first = await desk.dispatch()
    [one] = payments(1)
    await change(desk.url, [one], version=1)
    await until(lambda: desk.has_rows(1))
    await first.end()
    desk.receiver.answers = 200
    await desk.dispatch()
    await change(desk.url, [one], version=2)
    await until(lambda: desk.has_rows(2))
    assert await desk.rows("attempts, reason LIKE 'held%%'") == [(0, True), (1, False)]
    await fetch(desk.url, "UPDATE webhook_deliveries SET next_at = now() WHERE ms IS NOT NULL")
    [endpoint] = [state.endpoint for state in await desk.endpoints.list("default")]
    await desk.wake(endpoint)
    await desk.at_rest()
    assert [one.version for one in desk.receiver.received] == [1, 1, 2]


async def test_an_address_that_the_guard_refuses_is_a_failure(desk: DispatchDesk) -> None:
    await desk.endpoint()
    running = await desk.dispatch(guard=Guard())
    await change(desk.url, payments(1))
    await until(lambda: desk.has_rows(1))
    assert running.count("okane_webhook_requests_total", outcome="guard") == 1
    assert desk.receiver.received == []
    assert (await desk.rows("state, split_part(reason, E'\\n', 1)"))[0] == ("waiting", "guard")


async def test_without_an_endpoint_a_dispatcher_only_looks_once_a_second(desk: DispatchDesk) -> None:
    running = await desk.dispatch()
    await until(lambda: has_looked(running))
    assert running.dispatcher.feed.position == 0
    assert not running.dispatcher.leases.share.is_used
    assert await running.dispatcher.feed.run_once() == 0


async def has_looked(running: Running, *, after_s: float = 0.0) -> bool:
    return running.dispatcher.leases.share.now_s > after_s
