"""Results of deliveries in Postgres: rows and the place in the log, due rows, holds, and replays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from okane.store import WebhookEventStore, webhook_queues
from okane.store.webhook_partitions import POSITIONS
from okane.store.webhook_queues import Replay
from tests.okane.test_webhook_partitions import full_first_partition
from tests.okane.webhook_desk import Desk, batch, failed, held, leased, make_desk, result  # noqa: F401 - a fixture
from tests.okane.webhook_rows import created, fetch, log_event


async def test_results_move_the_place_with_their_rows(desk: Desk) -> None:
    queue = await leased(desk)
    written = await desk.one.write(
        [batch(queue, result(1, ms=12), failed(2), held(3), done_to=3, failures=1, error="status_5xx\nboom")], 0.0
    )
    assert written == {queue.endpoint.id}
    assert await desk.rows("position, state, attempts, status, ms, reason, next_at IS NOT NULL") == [
        (1, "delivered", 1, 200, 12, None, False),
        (2, "waiting", 1, 500, 5, "status_5xx\nboom", True),
        (3, "waiting", 0, None, None, "held", True),
    ]
    [state] = await desk.endpoints.list("default")
    assert (state.failures, state.last_error, state.waiting) == (1, "status_5xx\nboom", 2)
    assert await desk.rows("done_to", "webhook_queues") == [(3,)]


async def test_a_stale_owner_writes_nothing(desk: Desk) -> None:
    queue = await leased(desk)
    await desk.let_pass("11 s")
    [newer] = await desk.other.lease(10)
    assert await desk.one.write([batch(queue, result(1), done_to=1)], 0.0) == set()
    assert await desk.one.write([batch(newer, result(1), done_to=1)], 0.0) == set()  # its epoch, another owner
    assert await desk.rows("position") == []
    assert await desk.rows("done_to", "webhook_queues") == [(0,)]
    assert await desk.other.write([batch(newer, result(1), done_to=1)], 0.0) == {queue.endpoint.id}


async def test_one_statement_writes_several_queues_and_leaves_out_stale_ones(desk: Desk) -> None:
    for number in range(3):
        await created(desk.endpoints, f"account {number}")
    queues = await desk.one.lease(10)
    stale = replace(queues[1], epoch=0)
    batches = [batch(queue, result(7), done_to=7) for queue in (queues[0], stale, queues[2])]
    assert await desk.one.write(batches, 0.0) == {queues[0].endpoint.id, queues[2].endpoint.id}
    assert len(await desk.rows("position")) == 2


async def test_results_may_be_written_twice(desk: Desk) -> None:
    queue = await leased(desk)
    for _ in range(2):
        await desk.one.write([batch(queue, result(1), done_to=1)], 0.0)
    assert await desk.rows("position, state, attempts") == [(1, "delivered", 1)]


async def test_the_place_never_moves_back(desk: Desk) -> None:
    queue = await leased(desk)
    await desk.one.write([batch(queue, done_to=9)], 0.0)
    await desk.one.write([batch(queue, done_to=4)], 0.0)
    assert await desk.rows("done_to", "webhook_queues") == [(9,)]


async def test_a_row_keeps_its_failed_attempts(desk: Desk) -> None:
    queue = await leased(desk)
    for attempts in range(1, 31):
        await desk.one.write([batch(queue, failed(1, attempts=attempts), done_to=1)], 0.0)
    await desk.one.write([batch(queue, result(1, attempts=31, ms=9), done_to=1)], 0.0)
    columns = "state, attempts, status, next_at, jsonb_array_length(earlier)"
    assert await desk.rows(columns) == [("delivered", 31, 200, None, 20)]
    assert await desk.rows("earlier->0->>'reason', earlier->0->>'status'") == [("status_5xx\nboom", "500")]


async def test_an_attempt_that_ended_long_ago_has_its_time(desk: Desk) -> None:
    queue = await leased(desk)
    await desk.one.write([batch(queue, failed(1), done_to=1)], 60.0)
    assert await desk.rows("round(extract(epoch FROM now() - at))::int") == [(60,)]


async def test_a_postponed_row_keeps_its_attempt(desk: Desk) -> None:
    queue = await leased(desk)
    await desk.one.write([batch(queue, failed(1), done_to=1)], 0.0)
    await desk.one.write([batch(queue, held(1, delay_s=900.0), done_to=1)], 0.0)
    assert await desk.rows("attempts, status, reason, next_at > now() + interval '10 min', earlier") == [
        (1, 500, "status_5xx\nboom", True, None)
    ]


async def test_a_row_that_was_given_up_meanwhile_is_not_postponed(desk: Desk) -> None:
    queue = await leased(desk)
    await desk.one.write([batch(queue, failed(1), done_to=1)], 0.0)
    await fetch(desk.url, "UPDATE webhook_deliveries SET state = 'given_up', next_at = NULL RETURNING 1")
    await desk.one.write([batch(queue, held(1), done_to=1)], 0.0)
    assert await desk.rows("state, next_at") == [("given_up", None)]


async def test_failing_begins_with_the_first_failure_and_ends_with_a_success(desk: Desk) -> None:
    queue = await leased(desk)

    async def failing(*, failures: int, succeeded: bool) -> object:
        await desk.one.write([batch(queue, failures=failures, succeeded=succeeded, error="timeout")], 0.0)
        [(since_s,)] = await desk.rows("round(extract(epoch FROM now() - failing_since))::int", "webhook_queues")
        return since_s

    assert await failing(failures=2, succeeded=False) == 0
    await desk.let_pass("30 min")
    assert await failing(failures=9, succeeded=False) == 1800
    assert await failing(failures=1, succeeded=True) == 0
    assert await failing(failures=0, succeeded=True) is None


async def test_due_rows_come_up_to_the_room_with_the_time_of_the_next(desk: Desk) -> None:
    queue = await leased(desk)
    idle = await leased(desk, account_id="other")
    rows = [failed(position, delay_s=delay_s) for position, delay_s in ((1, 0.0), (2, 0.0), (3, 0.0), (4, 60.0))]
    await desk.one.write([batch(queue, *rows, done_to=4)], 0.0)
    due = await desk.one.due({queue.endpoint.id: 2, idle.endpoint.id: 5})
    assert [(row.endpoint_id, row.attempts) for row in due.rows] == [(queue.endpoint.id, 1)] * 2
    assert set(due.next_s) == {queue.endpoint.id}
    assert 55 < due.next_s[queue.endpoint.id] <= 60
    await desk.let_pass("11 s")
    [taken] = [one for one in await desk.other.lease(10) if one.endpoint.id == queue.endpoint.id]
    assert taken.has_waiting


async def test_holds_are_rows_never_sent_and_young_failures(desk: Desk) -> None:
    queue = await leased(desk)
    payments = [UUID(int=number) for number in range(1, 5)]
    positions = [await log_event(desk.url, payment_id=payment) for payment in payments]
    rows = [failed(positions[0]), failed(positions[1]), held(positions[2]), result(positions[3])]
    await desk.one.write([batch(queue, *rows, done_to=positions[-1])], 0.0)
    await fetch(
        desk.url,
        f"UPDATE webhook_deliveries SET at = at - interval '301 s' WHERE position = {positions[0]} RETURNING 1",
    )
    found = {hold.payment_id: hold.left_s for hold in await desk.one.holds({queue.endpoint.id: 300})}
    assert found.keys() == {payments[1], payments[2]}
    assert found[payments[2]] is None
    assert 295 < (found[payments[1]] or 0) <= 300


async def test_the_holds_of_one_queue_take_no_place_of_another(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_queues, "MOST_HOLDS", 2)
    queues = [await leased(desk, account_id) for account_id in ("loud", "quiet")]
    for queue in queues:
        positions = [await log_event(desk.url, queue.endpoint.account_id) for _ in range(3)]
        old = await log_event(desk.url, queue.endpoint.account_id)
        await desk.one.write([batch(queue, failed(old), *map(held, positions), done_to=old)], 400.0)
    found = Counter(hold.endpoint_id for hold in await desk.one.holds({one.endpoint.id: 300 for one in queues}))
    assert found == {one.endpoint.id: 2 for one in queues}


async def test_a_result_whose_table_partition_was_dropped_holds_up_no_other(desk: Desk) -> None:
    queue, other = [await leased(desk, account_id) for account_id in ("slow", "quick")]
    await fetch(desk.url, "UPDATE webhook_queues SET done_to = %s", POSITIONS)
    log = WebhookEventStore(desk.url)
    await full_first_partition(desk.url, days=31)
    assert (await log.drop_partitions(timedelta(days=30), None)).partitions == [0]
    await log.aclose()
    rows = [batch(queue, result(POSITIONS - 1), failed(POSITIONS)), batch(other, result(POSITIONS))]
    assert await desk.one.write(rows, 0.0) == {queue.endpoint.id, other.endpoint.id}
    assert sorted(await desk.rows("state, position")) == [("delivered", POSITIONS), ("waiting", POSITIONS)]


async def test_a_hold_counts_from_the_first_of_several_failures(desk: Desk) -> None:
    queue = await leased(desk)
    position = await log_event(desk.url)
    await desk.one.write([batch(queue, failed(position), done_to=position)], 200.0)
    await desk.one.write([batch(queue, failed(position, attempts=2), done_to=position)], 0.0)
    [hold] = await desk.one.holds({queue.endpoint.id: 300})
    assert 95 < (hold.left_s or 0) <= 100


async def logged(desk: Desk, count: int, *types: str) -> list[int]:
    names = types or ("payment.succeeded",)
    return [await log_event(desk.url, type_=names[number % len(names)]) for number in range(count)]


async def test_a_replay_leaves_out_what_is_delivered(desk: Desk) -> None:
    queue = await leased(desk)
    positions = await logged(desk, 6, "payment.succeeded", "payment.failed")
    await desk.one.write(
        [batch(queue, result(positions[0]), failed(positions[2], delay_s=None), done_to=positions[-1])], 0.0
    )
    assert await desk.deliveries.recover(
        "default", queue.endpoint.id, first=positions[0], last=positions[-1], only_failed=True
    )
    [replay] = await desk.one.replays([queue.endpoint.id])
    page = await desk.one.replay_page(
        replay,
        queue.endpoint,
        after=replay.next - 1,
        up_to=replay.to_position,
        types=["payment.succeeded"],
        limit=10,
    )
    assert (page.reached, list(page.positions)) == (positions[-1], [positions[2], positions[4]])
    everything = await desk.one.replay_page(
        replace(replay, only_failed=False),
        queue.endpoint,
        after=replay.next - 1,
        up_to=replay.to_position,
        types=["payment.succeeded", "payment.failed"],
        limit=4,
    )
    assert (everything.reached, list(everything.positions)) == (positions[3], positions[:4])


async def test_a_replay_ends_when_its_last_position_is_done(desk: Desk) -> None:
    queue = await leased(desk)
    positions = await logged(desk, 3)
    await desk.deliveries.recover(
        "default", queue.endpoint.id, first=positions[0], last=positions[-1], only_failed=True
    )
    [replay] = await desk.one.replays([queue.endpoint.id])
    assert replay.next == positions[0]

    async def move(before: Replay, replayed_to: int) -> Sequence[Replay]:
        await desk.one.write([batch(queue, replayed_to=replayed_to, replay=before)], 0.0)
        await desk.one.end_replay(before, epoch=queue.epoch)
        return await desk.one.replays([queue.endpoint.id])

    [moved] = await move(replay, positions[1])
    assert moved.next == positions[2]
    assert await move(moved, positions[2]) == []


async def test_a_replay_that_began_anew_is_not_moved(desk: Desk) -> None:
    queue = await leased(desk)
    positions = await logged(desk, 3)

    async def recover() -> Replay:
        await desk.deliveries.recover(
            "default", queue.endpoint.id, first=positions[0], last=positions[-1], only_failed=True
        )
        return (await desk.one.replays([queue.endpoint.id]))[0]

    replay = await recover()
    await desk.one.write([batch(queue, replayed_to=positions[0], replay=replay)], 0.0)
    assert await recover() == replay
    stale = replace(replay, next=positions[1])
    await desk.one.write([batch(queue, replayed_to=positions[-1], replay=stale)], 0.0)
    await desk.one.end_replay(stale, epoch=queue.epoch)
    assert [one.next for one in await desk.one.replays([queue.endpoint.id])] == [positions[0]]
