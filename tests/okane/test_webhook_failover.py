"""A failover to a standby that had not received the end of the log: its positions come again, with other events."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg
import pytest

from tests.okane.dispatching import CHANGE, DispatchDesk, Running, change, dispatch_desk, payments, serves, until
from tests.okane.webhook_desk import Desk, batch, failed, leased, make_desk, result  # noqa: F401 - a fixture
from tests.okane.webhook_receiver import receiving
from tests.okane.webhook_rows import fetch, log_event

LOSE = (
    "DELETE FROM webhook_events WHERE position > %(last)s",
    "DELETE FROM webhook_deliveries WHERE position > %(last)s",
    "UPDATE webhook_queues SET done_to = least(done_to, %(last)s)",
    "UPDATE webhook_sequencer SET last = %(last)s",
)
APPEND = """WITH dropped AS (DELETE FROM webhook_outbox), moved AS (
    INSERT INTO webhook_events (position, account_id, payment_id, version, type, at)
    SELECT %(last)s + row_number() OVER (), %(account)s, id, %(version)s, %(type)s, now() FROM unnest(%(ids)s::uuid[]) id
    RETURNING position)
UPDATE webhook_sequencer SET last = (SELECT max(position) FROM moved)"""


@pytest.fixture(name="dispatching")
async def make_dispatching(database_url: str) -> AsyncIterator[DispatchDesk]:
    async with receiving() as receiver, dispatch_desk(database_url, receiver) as desk:
        yield desk


async def delivered(desk: DispatchDesk, count: int) -> Running:
    """Run a dispatcher that has delivered so many events."""
    await desk.endpoint()
    running = await desk.dispatch()
    await until(lambda: serves(running, 1))
    await change(desk.url, payments(count))
    await desk.receiver.until(count)
    await desk.at_rest()
    return running


async def test_events_that_reuse_positions_of_a_log_that_went_back_are_sent(dispatching: DispatchDesk) -> None:
    running = await delivered(dispatching, 10)
    async with await psycopg.AsyncConnection.connect(dispatching.url) as connection:
        for statement in LOSE:
            await connection.execute(statement, {"last": 4})
    await until(lambda: is_at(running, 4))
    new = payments(3)
    await change(dispatching.url, new)
    await dispatching.receiver.until(13)
    await dispatching.at_rest()
    assert {one.payment for one in dispatching.receiver.received[10:]} == set(map(str, new))
    assert await dispatching.rows("position") == [(position,) for position in range(1, 8)]


async def test_a_log_that_has_passed_the_old_position_meanwhile_is_read_from_where_it_went_back(
    dispatching: DispatchDesk,
) -> None:
    """The dispatcher comes back when there are more events than before, by their number."""
    await delivered(dispatching, 10)
    new = payments(20)
    values: dict[str, object] = {
        "ids": new,
        "numbers": list(range(500, 520)),
        "version": 2,
        "account": "default",
        "last": 4,
    }
    values["type"] = "payment.succeeded"
    async with await psycopg.AsyncConnection.connect(dispatching.url) as connection:
        await connection.execute("LOCK TABLE webhook_sequencer IN ACCESS EXCLUSIVE MODE")
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'okane webhook sequencing' AND datname = current_database()"
        )
        for statement in LOSE:
            await connection.execute(statement, values)
        await connection.execute(CHANGE, values)
        await connection.execute(APPEND, values)
    await dispatching.receiver.until(30)
    await dispatching.at_rest()
    assert {one.payment for one in dispatching.receiver.received[10:]} == set(map(str, new))


async def is_at(running: Running, position: int) -> bool:
    return running.dispatcher.feed.position == position


async def test_a_place_behind_the_end_of_the_log_is_taken_back_with_its_rows(desk: Desk) -> None:
    queue = await leased(desk)
    for _ in range(3):
        await log_event(desk.url)
    await desk.one.write([batch(queue, result(2), failed(5), result(7), done_to=7)], 0.0)
    await desk.one.release([queue.endpoint.id])
    [again] = await desk.other.lease(1)
    assert (again.done_to, again.last, again.has_waiting) == (3, 3, True)
    assert await desk.rows("position") == [(2,)]
    assert await fetch(desk.url, "SELECT done_to FROM webhook_queues") == [(3,)]
