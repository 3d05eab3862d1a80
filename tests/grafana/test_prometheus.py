"""A real Prometheus scrapes a real system while faults happen to it: every panel has points, and shows its faults."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from grafana.screens.__main__ import draw, fetch_boards
from grafana.screens.boards import Board
from grafana.screens.prometheus import Span
from okane.local.redis_server import RedisServer
from streams import connect
from tests.flow.system import System, running
from tests.grafana import webhook_scene
from tests.grafana.boards import FILES, Panel, marks, panels, substitute
from tests.grafana.prometheus import PROGRAM, Prometheus, Series, choose_variables, query_panel, scraping, until
from tests.okane.stored_payments import execute

# The last four digits of an amount choose the answer of the provider (MAGIC_AMOUNTS).
WELL = (440, 1_500, 20_001)  # one for each lane
ILL = (
    4_002,  # card_declined
    14_003,  # insufficient_funds
    5_003,  # unavailable: a dead letter when the retries are spent
    5_004,  # time-out after it charged: unknown, then found
    15_005,  # time-out before it charged: unknown for so long that a human must decide
)
REFUNDED = 9_990_000
AMOUNTS = (*WELL, *WELL, *WELL, *ILL)
PAUSE_S = 0.04
FLUSHED_S = 3.0  # until a wake-up that was lost has been found, and the processes are listed again
RECONCILED = (  # a routine: on three days
    "INSERT INTO reconciliations (provider, day, listed, compared, differences, fees)"
    " SELECT 'http', current_date - day, 0, 0, '{}', '{}' FROM generate_series(1, 3) day"
)
SYSTEM = {"MAX_RETRIES": "1", "OKANE_UNKNOWN_DEADLINE": "2s"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """The effect of a fault on a panel: a series with these labels rises to `at_least`, or falls to `at_most`."""

    fault: str
    board: str
    title: str
    labels: tuple[tuple[str, str], ...] = ()
    at_least: float | None = None
    at_most: float | None = None

    def seen_in(self, series: list[Series]) -> bool:
        values = [value for one in series if set(self.labels) <= set(one.labels.items()) for value in one.values]
        if self.at_least is not None:
            return any(value >= self.at_least for value in values)
        return any(value <= (self.at_most or 0.0) for value in values)


OVERVIEW, STREAMS, PAYMENTS, DEPENDENCIES = "okane-overview", "okane-streams", "okane-payments", "okane-dependencies"
WEBHOOKS = "okane-webhooks"
SOME = 0.001
IDLE_S = 2  # no worker that lives is idle for as long
FAILED, FAILING = (("outcome", "status_5xx"),), (("state", "failing"),)
CARD, FUNDS = (("code", "card_declined"),), (("code", "insufficient_funds"),)

FAULTS = (
    Effect(fault="killed worker", board=OVERVIEW, title="Processes", labels=(("process", "w1"),), at_most=0),
    Effect(fault="killed worker", board=OVERVIEW, title="Processes that answer", at_most=0.9),
    Effect(fault="killed worker", board=STREAMS, title="Take-overs", at_least=SOME),
    Effect(fault="killed worker", board=STREAMS, title="Idle", labels=(("consumer", "w1"),), at_least=IDLE_S),
    Effect(fault="stopped worker", board=PAYMENTS, title="Late results", at_least=SOME),
    Effect(fault="Redis away", board=DEPENDENCIES, title="Redis", at_most=0),
    Effect(fault="Redis away", board=DEPENDENCIES, title="Dependencies up", labels=(("dependency", "redis"),), at_most=0),
    Effect(fault="Redis away", board=DEPENDENCIES, title="Run without Redis", at_least=SOME),
    Effect(fault="Redis away", board=DEPENDENCIES, title="Not enqueued", at_least=SOME),
    Effect(fault="Redis emptied", board=STREAMS, title="Groups made again", at_least=SOME),
    Effect(fault="Redis emptied", board=DEPENDENCIES, title="Repairs", at_least=SOME),
    Effect(fault="declines", board=PAYMENTS, title="Declines by code", labels=CARD, at_least=SOME),
    Effect(fault="declines", board=PAYMENTS, title="Declines by code", labels=FUNDS, at_least=SOME),
    Effect(fault="declines", board=OVERVIEW, title="Charged", at_most=0.9),
    Effect(fault="dead letters", board=STREAMS, title="Dead letters", at_least=1),
    Effect(fault="dead letters", board=PAYMENTS, title="Dead letters", at_least=1),
    Effect(fault="dead letters", board=OVERVIEW, title="For a human", at_least=1),
    Effect(fault="silent provider", board=PAYMENTS, title="Unknown", at_least=1),
    Effect(fault="silent provider", board=PAYMENTS, title="Needs review", at_least=1),
    Effect(fault="silent provider", board=PAYMENTS, title="Provider answers", at_most=0.95),
    Effect(fault="failing endpoint", board=WEBHOOKS, title="Failing endpoints", at_least=1),
    Effect(fault="failing endpoint", board=WEBHOOKS, title="Answered 2xx", at_most=0.95),
    Effect(fault="failing endpoint", board=WEBHOOKS, title="Requests by outcome", labels=FAILED, at_least=SOME),
    Effect(fault="failing endpoint", board=WEBHOOKS, title="Endpoints by state", labels=FAILING, at_least=1),
    Effect(fault="failing endpoint", board=WEBHOOKS, title="Backlog", labels=FAILING, at_least=1),
    Effect(fault="failing endpoint", board=WEBHOOKS, title="Failing for", at_least=1),
    Effect(fault="failing endpoint", board=WEBHOOKS, title="Repeats", labels=(("why", "retry"),), at_least=SOME),
    Effect(fault="killed dispatcher", board=WEBHOOKS, title="Queues taken over", at_least=SOME),
    Effect(fault="no dispatcher", board=WEBHOOKS, title="Without a dispatcher", at_least=2),
    Effect(fault="no dispatcher", board=WEBHOOKS, title="Backlog", labels=(("state", "healthy"),), at_least=1),
    Effect(fault="no request", board=DEPENDENCIES, title="Refused before any route", at_least=SOME),
)  # fmt: skip

# Alerts whose condition is met during the test. To ring, most conditions must last for minutes.
ALERTS = {
    "OkaneDeadLettersGrow",
    "OkaneLateResults",
    "OkaneNeedsReview",
    "OkaneRedisAway",
    "OkaneSettleBudgetBurn",
    "OkaneSweepRepairs",
    "OkaneWebhooksNoDispatcher",
    "OkaneWorkerGone",
}


@pytest.fixture
async def system(tmp_path: Path, database_url: str, private_redis: RedisServer) -> AsyncIterator[System]:
    await execute(database_url, RECONCILED, [])
    async with running(tmp_path / "system", database_url, private_redis.url) as one:
        one.env |= SYSTEM | webhook_scene.SETTINGS
        await one.start("w1", "w2", provider=("--magic-amounts", "--unavailable=0", "--decline=0", "--latency-ms=100"))
        yield one


@pytest.mark.timeout(600)  # half a minute on a machine that is not busy
@pytest.mark.skipif(PROGRAM is None, reason="prometheus is not installed (Debian: apt-get install prometheus)")
async def test_every_panel_has_points_and_shows_the_faults_it_claims_to(
    system: System, private_redis: RedisServer, tmp_path: Path
) -> None:
    sd = f"{system.metrics_url('api')}/http_sd"
    async with (
        webhook_scene.receiving() as receiver,
        scraping(tmp_path / "prometheus", sd=sd) as prometheus,
        paying(system),
        refunding(system),
    ):
        await webhook_scene.deliver(system, prometheus, receiver)
        await let_it_run(prometheus)
        # Its endpoint waits for the lease while workers have their faults.
        await webhook_scene.kill_a_dispatcher(system)
        await kill_a_worker(system, prometheus)
        await stop_a_worker(system, prometheus)
        await webhook_scene.leave_endpoints_alone(system, prometheus)
        await take_redis_away(private_redis, prometheus)
        await empty_redis(private_redis, prometheus)
        await send_bytes_that_are_no_request(system, prometheus)
        await until_shown(prometheus)
        await check_marks(prometheus)
        await check_rules(prometheus)
        await check_screens(prometheus, tmp_path / "screens")


@contextlib.asynccontextmanager
async def paying(system: System) -> AsyncIterator[None]:
    """Send payments, one after the other, inside the block."""

    async def pay() -> None:
        async with asyncio.TaskGroup() as requests:
            for number in itertools.count():
                requests.create_task(system.accepted(f"k-{number}", AMOUNTS[number % len(AMOUNTS)]))
                await asyncio.sleep(PAUSE_S)

    task = asyncio.ensure_future(pay())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def refunding(system: System) -> AsyncIterator[None]:
    """Refund one payment, a minor unit at a time, inside the block."""
    payment_id = await system.accepted("refunded", REFUNDED)
    assert await system.settled([payment_id]) == {"success": 1}

    async def refund() -> None:
        for number in itertools.count():
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                await system.refund(payment_id, 1, f"refund-{number}")
            await asyncio.sleep(PAUSE_S)

    task = asyncio.ensure_future(refund())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def let_it_run(prometheus: Prometheus) -> None:
    async def settled_by_both() -> bool:
        """Payments settle, and there are dead letters and payments that need a review"""
        busy = await prometheus.now('count(okane_payments_settled_total{status="success"} > 20)')
        human = await prometheus.now('okane_payments_waiting{status="needs_review"}')
        return busy == [2] and human >= [1] and await prometheus.now("okane_dead_letter_messages") >= [1]

    await until(settled_by_both)


async def kill_a_worker(system: System, prometheus: Prometheus) -> None:
    await in_hand(system, "w1")
    await system.kill("w1")

    async def missed() -> bool:
        """Its `up` is 0, its messages are taken over, and its consumer is seen to be idle"""
        idle = await prometheus.now('min(okane_stream_group_consumer_idle_seconds{consumer="w1"})')
        return (
            await prometheus.now('up{process="w1"}') == [0]
            and await prometheus.now("sum(okane_messages_reclaimed_total)") > [0]
            and idle >= [IDLE_S + 1]
        )

    await until(missed)
    await system.start_worker("w1")

    async def back() -> bool:
        """Its `up` is 1 again"""
        return await prometheus.now('up{process="w1"}') == [1]

    await until(back)


async def stop_a_worker(system: System, prometheus: Prometheus) -> None:
    """Stop a worker in the middle of calls until another takes its messages over; repeat if no outcome was late."""
    taken = 'sum(okane_messages_reclaimed_total{process="w1"})'

    async def late() -> bool:
        """An outcome came late"""
        [before] = await prometheus.now(taken)

        async def taken_over() -> bool:
            """The other worker has taken over the messages of the stopped one"""
            return await prometheus.now(taken) > [before + 1]

        await in_hand(system, "w2")
        system.signal("w2", signal.SIGSTOP)
        await until(taken_over)
        await asyncio.sleep(0.5)  # for the claims of the other worker to be granted
        system.signal("w2", signal.SIGCONT)
        await wait_for_scrapes()
        return await prometheus.now("sum(okane_late_results_total)") > [0]

    async def wait_for_scrapes() -> None:
        async def scraped() -> bool:
            """It has answered Prometheus again for two seconds"""
            return await prometheus.now('min_over_time(up{process="w2"}[2s])') == [1]

        await until(scraped)

    await until(late, within_s=120)


async def take_redis_away(redis: RedisServer, prometheus: Prometheus) -> None:
    await asyncio.to_thread(redis.kill)

    async def away() -> bool:
        """Redis is away, and payments run without it"""
        for_long = 'max_over_time(okane_dependency_up{dependency="redis"}[3s])'
        return await prometheus.now(for_long) == [0] and await prometheus.now("sum(okane_direct_runs_total)") > [0]

    await until(away)
    redis.start()

    async def back() -> bool:
        """Redis is back"""
        return await prometheus.now('okane_dependency_up{dependency="redis"}') == [1]

    await until(back)


async def empty_redis(redis: RedisServer, prometheus: Prometheus) -> None:
    """Flush Redis until the sweep has sent wake-ups again, each time when all processes are listed and scraped again. Once is
    not enough: there are none to send where workers still run payments directly, or Redis was empty at that moment."""

    async def all_listed() -> bool:
        """All processes are listed and answer"""
        return await prometheus.now("count(up == 1)") == [4]

    async def increased(counter: str) -> bool:
        """As alerts and panels see it: `increase` does not count the first value of a series"""
        return await prometheus.now(f"sum(increase({counter}[10m]))") > [0]

    async def made_again() -> bool:
        """The group was created again, the sweep sent wake-ups, and all processes are listed"""
        await client.flushall()
        await asyncio.sleep(FLUSHED_S)
        await until(all_listed)
        return await increased("okane_groups_recreated_total") and await increased("okane_sweep_repairs_total")

    async with connect(redis.url) as client:
        await until(made_again, within_s=120)


async def send_bytes_that_are_no_request(system: System, prometheus: Prometheus) -> None:
    """Send them twice: the first one creates the series, and a rate needs two values."""
    for count in (1, 2):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(system.url.rpartition(":")[2]))
        writer.write(b"what?\r\n\r\n")
        await reader.read()
        writer.close()

        async def counted(count: int = count) -> bool:
            """The bytes were counted"""
            return await prometheus.now("sum(okane_http_requests_refused_total)") == [count]

        await until(counted)


async def in_hand(system: System, name: str) -> None:
    """Wait until a worker holds claims."""
    async with asyncio.timeout(30):
        while await system.metric(name, "okane_payments_in_flight") < 2:
            await asyncio.sleep(0.01)


async def until_shown(prometheus: Prometheus) -> None:
    """Wait until every panel has points, and shows its faults."""
    left: dict[str, list[str]] = {}

    async def complete() -> bool:
        nonlocal left
        found: dict[str, list[str]] = {}
        for file in FILES:
            values = await choose_variables(prometheus, file)
            for panel in panels(file):
                if missing := await missing_in(prometheus, panel, dict(values)):
                    found[str(panel)] = missing
        left = found
        return not left

    try:
        await until(complete, within_s=180)  # on a busy machine one look at all panels takes half a minute
    except AssertionError:
        raise AssertionError(left) from None


async def missing_in(prometheus: Prometheus, panel: Panel, values: dict[str, str]) -> list[str]:
    """Return the queries without points and the faults that the panel does not show."""
    found = await query_panel(prometheus, panel, values)
    empty = [query for query, series in zip(panel.queries, found, strict=True) if not series]
    series = [one for each in found for one in each]
    faults = [one for one in FAULTS if (one.board, one.title) == (panel.board, panel.title)]
    return empty + [one.fault for one in faults if not one.seen_in(series)]


async def check_marks(prometheus: Prometheus) -> None:
    for file in FILES:
        for query in marks(file).values():
            assert await prometheus.over_time(substitute(query, await choose_variables(prometheus, file))), query


async def check_rules(prometheus: Prometheus) -> None:
    """Check that every rule can be evaluated, and that the faults met the conditions of their alerts."""
    rules = [rule for group in (await prometheus.get("rules"))["groups"] for rule in group["rules"]]
    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []
    for rule in rules:
        await prometheus.over_time(rule["query"])
    unmet = ALERTS

    async def all_met() -> bool:
        nonlocal unmet
        unmet = ALERTS - {one.labels["alertname"] for one in await prometheus.over_time("ALERTS")}
        return not unmet

    try:
        await until(all_met, within_s=30)  # rules are evaluated every second, and a busy machine is behind
    except AssertionError:
        raise AssertionError(unmet) from None


async def check_screens(prometheus: Prometheus, folder: Path) -> None:
    """Check that every panel is drawn with points, and that its picture is small enough for a README."""
    boards: list[Board] = []

    async def answered() -> bool:
        """Every query has points on the grid of the pictures, which ends up to one step ago"""
        span = Span(from_s=prometheus.since_s, to_s=time.time(), interval_s=2.5)  # rates over 10 s, as elsewhere here
        boards[:] = await fetch_boards(prometheus.url, span)
        return all(panel.answers for board in boards for panel in board.panels if panel.kind != "row")

    await until(answered)
    drawn = await asyncio.to_thread(draw, boards, folder, report=print)
    assert [(one.board, one.title) for one in drawn] == [
        (panel.board, panel.title) for file in FILES for panel in panels(file)
    ]
    assert [one for one in drawn if not one.points] == []
    for file in FILES:
        picture = (folder / f"{file.stem}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) < 300_000


def test_every_effect_names_a_panel_that_exists() -> None:
    existing = {(panel.board, panel.title) for file in FILES for panel in panels(file)}
    assert {(one.board, one.title) for one in FAULTS} <= existing
