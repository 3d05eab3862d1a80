"""The sweep against real servers: what it finds, and what it leaves alone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
import uuid_utils
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from okane.errors import StoreBusy
from okane.lanes import payments_stream
from okane.local.redis_server import RedisServer
from okane.metrics import OkaneMetrics
from okane.payment import Status
from okane.payment_id import PaymentId
from okane.store import Overview, PaymentStore, SweepStore, WakeUp, sql_files
from okane.store import sweep as sweep_module
from okane.store.sweep import MarkResult
from okane.worker import sweep as sweep_under_test
from okane.worker.direct_run import DirectRuns
from okane.worker.sweep import LaneState, Sweep
from streams import Done, Handler, Inspector, Message, Outcome, Producer, StreamForbidden, StreamUnavailable, connect
from streams.errors import GroupLost
from tests.okane.lane_states import EMPTY
from tests.okane.stored_payments import GRACE, LEASE, accept_one, claimed, new, settlement
from tests.streams.refusals import REPLIES
from tests.streams.servers import RefusingServer


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PaymentStore]:
    store = PaymentStore(database_url, actor="test", lease=LEASE, grace=GRACE)
    yield store
    await store.aclose()


@pytest.fixture
async def sweeps(database_url: str) -> AsyncIterator[SweepStore]:
    sweeps = SweepStore(database_url, grace=GRACE)
    yield sweeps
    await sweeps.aclose()


async def accept_aged(store: PaymentStore, url: str, key: str, *, age_s: float) -> UUID:
    """A payment accepted so long ago: its id and its times say so."""
    payment_id = (await accept_one(store, new(key))).payment.id
    # The 48 bits of milliseconds at the front of a uuid v7 are its time (RFC 9562).
    aged = UUID(int=payment_id.int - (int(age_s * 1000) << 80))
    await execute(
        url,
        "UPDATE payments SET id = %s, created_at = created_at - %s * interval '1 second' WHERE id = %s",
        [aged, age_s, payment_id],
    )
    return aged


async def execute(url: str, statement: str, parameters: list[object]) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(statement, parameters)


async def due(sweeps: SweepStore) -> set[UUID]:
    return {one.payment_id for one in await sweeps.take_due(EMPTY, limit=100)}


async def mark(sweeps: SweepStore, ages: Mapping[str, timedelta | None] = EMPTY) -> int:
    """One round over all lanes; how many were marked."""
    await sweeps.advance_horizon()  # the moment before the test's payments,
    await sweeps.advance_horizon()  # and the moment after them
    return sum([(await sweeps.mark_lost(lane, age)).lost for lane, age in ages.items()])


async def looks(sweeps: SweepStore) -> Mapping[str, MarkResult]:
    """Return the result of one round over all lanes, by lane."""
    return {lane: await sweeps.mark_lost(lane, None) for lane in EMPTY}


def remembering(ran: list[UUID]) -> Handler:
    """A handler that only notes which payments it was given."""

    async def handler(message: Message) -> Outcome:
        ran.append(UUID(bytes=message.body))
        return Done()

    return handler


def make_sweep(
    sweeps: SweepStore,
    producer: Producer,
    lanes: Callable[[], Awaitable[Mapping[str, LaneState]]],
    *,
    metrics: OkaneMetrics,
    direct: DirectRuns | None = None,
    mark_interval: timedelta = timedelta(0),
) -> Sweep:
    return Sweep(
        store=sweeps,
        producer=producer,
        direct=direct or DirectRuns(remembering([]), concurrency=10, metrics=metrics),
        lanes=lanes,
        interval=timedelta(seconds=1),
        metrics=metrics,
        mark_interval=mark_interval,
    )


async def test_a_lost_wake_up_is_found_after_the_grace(
    store: PaymentStore, sweeps: SweepStore, database_url: str
) -> None:
    old = await accept_aged(store, database_url, "old", age_s=11)
    await accept_aged(store, database_url, "young", age_s=5)
    assert await mark(sweeps) == 1
    assert await due(sweeps) == {old}
    assert await due(sweeps) == set()  # pushed back


async def test_what_may_still_be_in_its_lane_is_left_alone(
    store: PaymentStore, sweeps: SweepStore, database_url: str
) -> None:
    await accept_aged(store, database_url, "queued", age_s=60)
    lost = await accept_aged(store, database_url, "lost", age_s=120)
    ages = EMPTY | {"low": timedelta(seconds=70)}  # the lane's oldest entry is younger than the lost one
    assert await mark(sweeps, ages) == 1
    assert await due(sweeps) == {lost}
    other_lane = EMPTY | {"critical": timedelta(seconds=500)}
    assert await mark(sweeps, other_lane) == 1


async def test_a_claimed_payment_is_swept_after_its_lease(
    store: PaymentStore, sweeps: SweepStore, database_url: str
) -> None:
    payment_id = await accept_aged(store, database_url, "k", age_s=20)
    await claimed(store, payment_id)
    assert await mark(sweeps) == 1
    assert await due(sweeps) == set()
    await execute(database_url, "UPDATE payments SET sweep_at = now(), lease_until = now() WHERE id = %s", [payment_id])
    assert await due(sweeps) == {payment_id}


async def test_settled_payments_are_passed_for_good(store: PaymentStore, sweeps: SweepStore, database_url: str) -> None:
    payment_id = await accept_aged(store, database_url, "k", age_s=20)
    claim = await claimed(store, payment_id)
    await store.settle(settlement(claim.payment))
    assert await mark(sweeps) == 0
    assert await due(sweeps) == set()


async def marked(url: str, payment_id: UUID) -> bool:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        cursor = await connection.execute("SELECT sweep_at IS NOT NULL FROM payments WHERE id = %s", [payment_id])
        row = await cursor.fetchone()
        assert row is not None
        return bool(row[0])


async def test_a_payment_whose_clock_is_wrong_is_marked_when_it_is_written(
    store: PaymentStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not await marked(database_url, (await accept_one(store, new("right"))).payment.id)
    real = uuid_utils.uuid7
    for skew_s in (-300, -6, 6, 300):
        monkeypatch.setattr(uuid_utils, "uuid7", lambda skew_s=skew_s: UUID(int=real().int + skew_s * (1000 << 80)))
        assert await marked(database_url, (await accept_one(store, new(f"skewed {skew_s}"))).payment.id)


async def test_a_payment_behind_the_cursor_is_marked_when_it_is_written(store: PaymentStore, database_url: str) -> None:
    """All clocks have stepped back: they agree with each other, and not with what the cursor has passed."""
    ahead = UUID(int=PaymentId().int + (60_000 << 80))
    await execute(database_url, "INSERT INTO sweep_cursors VALUES ('low', %s)", [ahead])
    assert await marked(database_url, (await accept_one(store, new())).payment.id)


@pytest.mark.parametrize("role", ["okane", "somebody_else"])
async def test_an_open_transaction_holds_the_cursor_back(store: PaymentStore, database_url: str, role: str) -> None:
    """Its payment may not be visible yet, and must not be passed; in any session's transaction."""
    sweeps = SweepStore(database_url, grace=timedelta(0))
    if role != "okane":
        await execute(
            database_url,
            f"DO $$ BEGIN CREATE ROLE {role} LOGIN PASSWORD 'x'; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
            [],
        )
    url = database_url if role == "okane" else re.sub(r"//[^@]*@", f"//{role}:x@", database_url)
    await sweeps.advance_horizon()
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute("SELECT pg_current_xact_id()")
        payment_id = (await accept_one(store, new())).payment.id
        await asyncio.sleep(0.01)
        assert await mark(sweeps) == 0
        await connection.rollback()
    assert await mark(sweeps) == 1
    assert await due(sweeps) == {payment_id}
    await sweeps.aclose()


async def test_a_locked_row_holds_up_its_own_lane_alone(
    store: PaymentStore, sweeps: SweepStore, database_url: str
) -> None:
    locked = await accept_aged(store, database_url, "locked", age_s=30)
    other = await accept_aged(store, database_url, "other", age_s=20)
    await execute(database_url, "UPDATE payments SET lane = 'critical' WHERE id = %s", [other])
    await sweeps.advance_horizon()
    await sweeps.advance_horizon()
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute("SELECT FROM payments WHERE id = %s FOR UPDATE", [locked])
        with pytest.raises(StoreBusy):
            await sweeps.mark_lost("low", None)
        assert (await sweeps.mark_lost("critical", None)).lost == 1
        await connection.rollback()
    assert await mark(sweeps) == 1


async def test_a_long_backlog_is_passed_in_windows(
    store: PaymentStore, sweeps: SweepStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_module, "WINDOW", 7)
    ids = {await accept_aged(store, database_url, f"k{number}", age_s=20 + number) for number in range(30)}
    await sweeps.advance_horizon()
    await sweeps.advance_horizon()
    found = [await sweeps.mark_lost("low", None)]
    while found[-1].more:
        found.append(await sweeps.mark_lost("low", None))
    assert (sum(one.lost for one in found), len(found) > 4) == (30, True)
    assert await due(sweeps) == ids


async def test_the_first_look_over_an_old_table_passes_what_is_settled_once_for_all_lanes(
    store: PaymentStore, sweeps: SweepStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_module, "WINDOW", 10)
    overview = Overview(database_url)
    for number in range(30):
        settled = await claimed(store, await accept_aged(store, database_url, f"settled {number}", age_s=900 - number))
        await store.settle(settlement(settled.payment))
    lost = await accept_aged(store, database_url, "lost", age_s=100)
    other = await accept_aged(store, database_url, "other", age_s=50)
    await execute(database_url, "UPDATE payments SET lane = 'critical' WHERE id = %s", [other])
    await sweeps.advance_horizon()
    await sweeps.advance_horizon()
    # Three windows of ten are behind all lanes together when the fourth finds something open.
    assert await looks(sweeps) == {
        "critical": MarkResult(0, True),
        "default": MarkResult(0, True),
        "low": MarkResult(0, True),
    }
    assert timedelta(seconds=100) <= await overview.oldest_due() < timedelta(seconds=200)
    assert await looks(sweeps) == {
        "critical": MarkResult(1, False),
        "default": MarkResult(0, False),
        "low": MarkResult(1, False),
    }
    assert await due(sweeps) == {lost, other}
    assert await mark(sweeps) == 0
    await overview.aclose()


async def test_a_lane_of_its_own_begins_where_the_first_look_of_all_lanes_has_got_to(
    store: PaymentStore, sweeps: SweepStore, database_url: str
) -> None:
    """Else the age of what waits in it would be told from where the other lanes are."""
    overview = Overview(database_url)
    await accept_aged(store, database_url, "lost", age_s=100)
    await sweeps.advance_horizon()
    await sweeps.advance_horizon()
    await execute(database_url, "INSERT INTO sweep_cursors SELECT '', id FROM payments", [])
    assert await sweeps.mark_lost("low", timedelta(seconds=500)) == MarkResult(
        0, False
    )  # its entry is alive, the lane behind
    assert await sweeps.mark_lost("critical", None) == MarkResult(0, False)
    assert timedelta(seconds=100) <= await overview.oldest_due() < timedelta(seconds=200)
    assert await sweeps.mark_lost("low", None) == MarkResult(1, False)
    await overview.aclose()


async def test_a_new_lane_finds_what_is_open_in_it_behind_the_cursors_of_the_others(
    store: PaymentStore, sweeps: SweepStore, database_url: str
) -> None:
    """An API that knows the lane may run long before a worker that does."""
    assert await mark(sweeps) == 0
    old = await accept_aged(store, database_url, "old", age_s=100)
    await accept_aged(store, database_url, "lost", age_s=50)
    await execute(database_url, "UPDATE payments SET lane = 'new' WHERE id = %s", [old])
    assert await mark(sweeps) == 1
    assert await mark(sweeps, {"new": None}) == 1
    assert await sweeps.take_due({"new": None}, limit=100) == [WakeUp(old, "new")]


async def test_only_one_process_marks_at_a_time(store: PaymentStore, sweeps: SweepStore, database_url: str) -> None:
    await accept_aged(store, database_url, "k", age_s=20)
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('okane.sweep'))")
        assert await mark(sweeps) == 0
        await connection.rollback()
    assert await mark(sweeps) == 1


async def test_the_next_look_comes_when_the_lane_must_have_read_what_was_sent(
    store: PaymentStore, sweeps: SweepStore, database_url: str
) -> None:
    payment_id = await accept_aged(store, database_url, "k", age_s=20)
    await mark(sweeps)
    waits = []
    for age_s in (None, 0, 30, 30, 3600, None):
        await execute(database_url, "UPDATE payments SET sweep_at = now() WHERE id = %s", [payment_id])
        age = None if age_s is None else timedelta(seconds=age_s)
        assert await sweeps.take_due({"default": None, "low": age}, limit=10) == [WakeUp(payment_id, "low")]
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            cursor = await connection.execute("SELECT extract(epoch FROM sweep_at - now())::float8 FROM payments")
            row = await cursor.fetchone()
            assert row is not None
            waits.append(round(row[0]))
    assert waits == [10, 10, 40, 40, 310, 10]


async def test_the_oldest_due_payment_is_known(store: PaymentStore, database_url: str) -> None:
    overview = Overview(database_url)
    assert await overview.oldest_due() == timedelta(0)
    payment_id = await accept_aged(store, database_url, "k", age_s=20)
    assert timedelta(seconds=20) <= await overview.oldest_due() < timedelta(seconds=25)
    await execute(database_url, "INSERT INTO sweep_cursors SELECT 'low', id FROM payments", [])
    assert timedelta(seconds=20) <= await overview.oldest_due(), "what the cursor stands at is not behind it"
    claim = await claimed(store, payment_id)
    assert await overview.oldest_due() == timedelta(0)
    await store.settle(settlement(claim.payment, Status.UNKNOWN, delay=timedelta(0)))
    await execute(
        database_url, "UPDATE payments SET retry_at = now() - interval '7 seconds' WHERE id = %s", [payment_id]
    )
    assert timedelta(seconds=7) <= await overview.oldest_due() < timedelta(seconds=12)
    assert (await overview.count_waiting())[Status.UNKNOWN] == 1
    assert await overview.count_all() == {Status.UNKNOWN: 1}
    await overview.aclose()


async def test_the_oldest_due_payment_is_found_without_reading_what_is_due_tomorrow(
    store: PaymentStore, database_url: str
) -> None:
    """Payments that are closed and to be looked up wait for a day, and may be many."""
    await execute(
        database_url,
        "INSERT INTO payments (id, account_id, idempotency_key, fingerprint, amount_minor, currency, lane, provider_key,"
        " status, rare_status, sweep_at) SELECT gen_random_uuid(), 'default', n, '\\x00', 440, 'USD', 'low', n, 'canceled',"
        " 'canceled', now() + interval '20 hours' FROM generate_series(1, 2000) n",
        [],
    )
    payment_id = (await accept_one(store, new("k"))).payment.id
    claim = await claimed(store, payment_id)
    await store.settle(settlement(claim.payment, Status.FAILED_RETRYABLE, delay=timedelta(0)))
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("ANALYZE payments; SET enable_seqscan = off")
        found = await connection.execute(
            f"EXPLAIN ANALYZE {sql_files.load_statements('overview.sql')['oldest_due']}".encode()
        )
        plan = "\n".join(row[0] for row in await found.fetchall())
    assert re.search(r"payments_sweep_at.*\(actual [^)]*rows=1(\.00)? ", plan), plan
    overview = Overview(database_url)
    assert await overview.oldest_due() > timedelta(0)
    await overview.aclose()


async def test_what_needs_a_review_is_swept_once_at_most(
    store: PaymentStore, sweeps: SweepStore, database_url: str
) -> None:
    """The version before does not clear sweep_at where it finds a charge of a payment that is closed."""
    payment_id = (await accept_one(store, new("k"))).payment.id
    await store.bury(payment_id, reason="charged late")
    await execute(database_url, "UPDATE payments SET sweep_at = now() WHERE id = %s", [payment_id])
    await due(sweeps)
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        found = await connection.execute("SELECT sweep_at FROM payments")
        assert await found.fetchall() == [(None,)]


async def test_what_waits_for_a_human_is_counted_until_it_is_struck_off(store: PaymentStore, database_url: str) -> None:
    overview = Overview(database_url)
    ids = [(await accept_one(store, new(f"k-{number}"))).payment.id for number in range(2)]
    for payment_id in ids:
        await store.bury(payment_id, reason="poison")
    assert await overview.count_waiting() == {Status.NEEDS_REVIEW: 2}
    await execute(database_url, "UPDATE payments SET dead_at = NULL WHERE id = %s", [ids[0]])
    assert await overview.count_waiting() == {Status.NEEDS_REVIEW: 1}
    await overview.aclose()


async def test_a_manual_retry_of_an_old_payment_is_not_long_overdue(store: PaymentStore, database_url: str) -> None:
    overview = Overview(database_url)
    payment_id = await accept_aged(store, database_url, "k", age_s=3600)
    claim = await claimed(store, payment_id)
    await store.settle(settlement(claim.payment, Status.FAILED_FINAL))
    await execute(database_url, "INSERT INTO sweep_cursors SELECT 'low', id FROM payments", [])
    await store.retry(payment_id, account_id="default", actor="test")
    assert await overview.oldest_due() < timedelta(seconds=5)
    await overview.aclose()


async def test_a_sweep_puts_lost_payments_back_on_their_lane(
    store: PaymentStore, sweeps: SweepStore, database_url: str, redis_url: str
) -> None:
    await accept_aged(store, database_url, "k", age_s=20)
    stream = payments_stream(f"test-{uuid4()}")
    metrics = OkaneMetrics(CollectorRegistry())
    async with connect(redis_url) as redis:
        producer = Producer(redis, stream)
        room = {"critical": 10, "default": 10, "low": 0}

        async def lanes() -> dict[str, LaneState]:
            return {name: LaneState(None, room[name]) for name in EMPTY}

        sweep = make_sweep(sweeps, producer, lanes, metrics=metrics)
        await sweeps.advance_horizon()
        assert await sweep.run_once() == 0  # its lane is full: nothing is pushed back either
        room = {"critical": 0, "default": 0, "low": 10}  # the others being full is not its concern
        assert await sweep.run_once() == 1
        stats = await Inspector(redis, stream, group="workers").stats()
        assert {lane.lane: lane.length for lane in stats.lanes} == {"critical": 0, "default": 0, "low": 1}
        await producer.aclose()
    assert metrics.registry.get_sample_value("okane_sweep_repairs_total", {"lane": "low"}) == 1


async def test_while_redis_is_away_due_payments_run_directly(
    store: PaymentStore, sweeps: SweepStore, database_url: str, redis_url: str
) -> None:
    known_lost = await accept_one(store, new("k0"), wake=False)
    found_lost = await accept_aged(store, database_url, "k1", age_s=20)
    young = await accept_one(store, new("k2"))
    ran: list[UUID] = []

    async def lanes() -> dict[str, LaneState]:
        raise StreamUnavailable("away")

    async with connect(redis_url) as redis:
        metrics = OkaneMetrics(CollectorRegistry())
        producer = Producer(redis, payments_stream(f"test-{uuid4()}"))
        direct = DirectRuns(remembering(ran), concurrency=10, metrics=metrics)
        sweep = make_sweep(sweeps, producer, lanes, metrics=metrics, direct=direct)
        await sweeps.advance_horizon()
        assert await sweep.run_once() == 1  # and, as that leaves places free, marks what the cursor finds
        assert await sweep.run_once() == 1
        assert await sweep.run_once() == 0
        await direct.drain(timedelta(seconds=10))
        await producer.aclose()
    assert ran == [known_lost.payment.id, found_lost]
    assert young.payment.id not in ran
    assert metrics.registry.get_sample_value("okane_direct_runs_total", {"lane": "low"}) == 2


async def test_lost_payments_are_looked_for_at_their_interval_and_at_once_without_redis(
    store: PaymentStore, sweeps: SweepStore, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, is_away, look = 0, False, sweeps.advance_horizon

    async def counted() -> None:
        nonlocal looked
        looked += 1
        await look()

    async def lanes() -> dict[str, LaneState]:
        if is_away:
            raise StreamUnavailable("away")
        return {name: LaneState(None, 100) for name in EMPTY}

    monkeypatch.setattr(sweeps, "advance_horizon", counted)
    async with connect(redis_url) as redis:
        metrics = OkaneMetrics(CollectorRegistry())
        producer = Producer(redis, payments_stream(f"test-{uuid4()}"))
        sweep = make_sweep(sweeps, producer, lanes, metrics=metrics, mark_interval=timedelta(hours=1))
        for number in range(3):
            await accept_one(store, new(f"k{number}"), wake=False)
            assert await sweep.run_once() == 1, "what is due is woken in each round"
        assert looked == 1
        is_away = True
        await sweep.run_once()
        await sweep.run_once()
        await producer.aclose()
    assert looked == 3


async def test_what_a_full_redis_does_not_take_runs_directly(
    store: PaymentStore, sweeps: SweepStore, private_redis: RedisServer
) -> None:
    """At maxmemory Redis can be read, and refuses every new entry."""
    accepted = await accept_one(store, new("k"), wake=False)
    ran: list[UUID] = []

    async def lanes() -> dict[str, LaneState]:
        return {name: LaneState(None, 100) for name in EMPTY}

    async with connect(private_redis.url) as redis:
        await redis.config_set("maxmemory", 1)
        metrics = OkaneMetrics(CollectorRegistry())
        producer = Producer(redis, payments_stream("full"))
        direct = DirectRuns(remembering(ran), concurrency=10, metrics=metrics)
        sweep = make_sweep(sweeps, producer, lanes, metrics=metrics, direct=direct)
        assert await sweep.run_once() == 1
        await direct.drain(timedelta(seconds=10))
        await producer.aclose()
    assert ran == [accepted.payment.id]


@pytest.mark.parametrize("text", REPLIES)
async def test_whatever_error_redis_answers_due_payments_run_directly(
    text: str, store: PaymentStore, sweeps: SweepStore
) -> None:
    accepted = await accept_one(store, new("k"), wake=False)
    ran: list[UUID] = []
    metrics = OkaneMetrics(CollectorRegistry())
    async with RefusingServer(f"-{text}") as server, connect(server.url) as redis:
        stream = payments_stream("refused")
        producer = Producer(redis, stream)
        direct = DirectRuns(remembering(ran), concurrency=10, metrics=metrics)

        async def lanes() -> dict[str, LaneState]:
            await Inspector(redis, stream, group="workers").stats()
            await producer.check()
            raise AssertionError

        sweep = make_sweep(sweeps, producer, lanes, metrics=metrics, direct=direct)
        with capture_logs() as lines:
            assert await sweep.run_once() == 1
            assert await sweep.run_once() == 0
        await direct.drain(timedelta(seconds=10))
        await producer.aclose()
    assert ran == [accepted.payment.id]
    assert [(line["event"], line["log_level"]) for line in lines] == [("running_without_redis", "error")]
    if REPLIES[text] is not GroupLost:
        strange = REPLIES[text] not in (StreamUnavailable, StreamForbidden)
        assert bool(lines[0]["exc_info"]) == strange, "a damaged key or a bug is logged with its traceback"


async def test_a_consumer_that_cannot_read_for_too_long_counts_as_no_redis_until_it_reads_again(
    store: PaymentStore, sweeps: SweepStore, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_under_test, "CHECK_AGAIN_S", 0.0)
    ran: list[UUID] = []
    unable = timedelta(0)
    metrics = OkaneMetrics(CollectorRegistry())

    async def lanes() -> dict[str, LaneState]:
        return {name: LaneState(None, 100) for name in EMPTY}

    async with connect(redis_url) as redis:
        producer = Producer(redis, payments_stream(f"test-{uuid4()}"))
        direct = DirectRuns(remembering(ran), concurrency=10, metrics=metrics)
        sweep = Sweep(
            store=sweeps,
            producer=producer,
            direct=direct,
            lanes=lanes,
            interval=timedelta(seconds=1),
            metrics=metrics,
            unable_for=lambda: unable,
            patience=timedelta(seconds=3),
        )
        directly = []
        with capture_logs() as lines:
            for number, unable_s in enumerate([0, 2, 3, 60, 0]):
                unable = timedelta(seconds=unable_s)
                directly.append((await accept_one(store, new(f"k{number}"), wake=False)).payment.id)
                assert await sweep.run_once() == 1
        await direct.drain(timedelta(seconds=10))
        await producer.aclose()
    assert ran == directly[2:4]
    said = [line["event"] for line in lines if line["log_level"] == "error"]
    assert said == ["running_without_redis", "redis_back"]


@pytest.mark.parametrize("status", [Status.FAILED_RETRYABLE, Status.UNKNOWN])
async def test_without_wake_ups_a_retry_is_due_at_its_own_time_once_and_not_before(
    status: Status, store: PaymentStore, sweeps: SweepStore, database_url: str
) -> None:
    claim = await claimed(store, (await accept_one(store, new("k"))).payment.id)
    await store.settle(settlement(claim.payment, status, delay=timedelta(hours=1)))
    assert await sweeps.take_due(EMPTY, limit=10, by_retry_at=True) == []
    due_now = "UPDATE payments SET retry_at = now(), sweep_at = now() + interval '10 seconds' WHERE id = %s"
    await execute(database_url, due_now, [claim.payment.id])
    assert await sweeps.take_due(EMPTY, limit=10) == []
    assert [one.payment_id for one in await sweeps.take_due(EMPTY, limit=10, by_retry_at=True)] == [claim.payment.id]
    assert await sweeps.take_due(EMPTY, limit=10, by_retry_at=True) == [], "taken, and on its way"


async def test_direct_runs_no_more_at_once_than_it_may_and_survives_a_bug() -> None:
    in_hand: list[bytes] = []
    most = 0
    release = asyncio.Event()

    async def handler(message: Message) -> Outcome:
        nonlocal most
        in_hand.append(message.body)
        most = max(most, len(in_hand))
        await release.wait()
        in_hand.remove(message.body)
        raise RuntimeError("a bug")

    direct = DirectRuns(handler, concurrency=4, metrics=OkaneMetrics(CollectorRegistry()))
    direct.start([WakeUp(uuid4(), "low") for _ in range(10)])
    assert direct.free == 0
    room = asyncio.create_task(direct.wait_for_room())
    await asyncio.sleep(0)
    assert not room.done()
    release.set()
    await room
    await direct.drain(timedelta(seconds=10))
    assert (most, direct.free) == (4, 4)


async def test_what_direct_cannot_finish_in_time_is_cancelled() -> None:
    async def for_ever(message: Message) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    direct = DirectRuns(for_ever, concurrency=4, metrics=OkaneMetrics(CollectorRegistry()))
    direct.start([WakeUp(uuid4(), "low")])
    await direct.drain(timedelta(0))
    assert direct.free == 4


async def test_an_open_insert_is_not_passed_even_if_nothing_else_happens(database_url: str) -> None:
    """All workers were down; the only transaction there is has not committed when the first of them looks."""
    sweeps = SweepStore(database_url, grace=timedelta(milliseconds=500))
    await execute(database_url, "INSERT INTO sweep_cursors VALUES ('low', '00000000-0000-0000-0000-000000000000')", [])
    async with await psycopg.AsyncConnection.connect(database_url) as slow:
        payment_id = PaymentId()
        await slow.execute(
            "INSERT INTO payments (id, account_id, idempotency_key, fingerprint, amount_minor, currency, lane, provider_key)"
            " VALUES (%s, 'a', 'slow', '', 1, 'USD', 'low', 'slow')",
            [payment_id],
        )
        await asyncio.sleep(0.7)  # longer than the grace
        await mark(sweeps, {"low": None})
        await slow.commit()
    lost = 0
    async with asyncio.timeout(30):
        while lost == 0:
            lost = await mark(sweeps, {"low": None})
    await sweeps.aclose()


async def test_a_dump_from_a_server_with_higher_transaction_ids_does_not_blind_the_sweep(
    store: PaymentStore, database_url: str
) -> None:
    sweeps = SweepStore(database_url, grace=timedelta(0))
    await execute(database_url, "UPDATE sweep_horizon SET seen_xmax = '4294967296123'", [])
    await accept_one(store, new())
    lost = 0
    async with asyncio.timeout(30):
        while lost == 0:
            lost = await mark(sweeps)
    await sweeps.aclose()
