"""`okane top`: rates and quantiles between two looks, the picture at 80 by 24, and the command against real servers."""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from rich.console import Console

from okane.api.metrics_endpoint import MetricsSources, build_metrics_app
from okane.app.system_metrics import SystemMetrics
from okane.cli.top.drawing import render
from okane.config import Settings
from okane.lanes import operations_stream, payments_stream
from okane.metrics import OkaneMetrics
from okane.monitoring import operation_summary, webhook_summary
from okane.monitoring.observation import Observation
from okane.monitoring.operation_summary import OperationCounts
from okane.monitoring.picture import LaneRow, OperationsRow, Picture, ProcessRow, ProviderRow, WebhookRow, build_picture
from okane.monitoring.samples import SampleDelta, delta, parse_samples, quantile
from okane.operation import OperationKind, OperationStatus
from okane.payment import Status
from okane.redis.presence import Presence, PresentProcess
from okane.store import PaymentStore
from okane.store.providers import ProviderState
from okane.store.webhook_overview import EndpointState, WebhookOverview
from streams import ConsumerStats, LaneStats, Producer, Stream, StreamStats, connect
from tests.forked_process import run_okane_beside
from tests.okane.stored_payments import GRACE, LEASE, accept_one, new

SECOND = timedelta(seconds=1)


def said(**counts: float) -> str:
    return "".join(f'# TYPE {name} counter\n{name}_total{{lane="low"}} {value}\n' for name, value in counts.items())


def between(before: str, after: str, *, seconds: float = 2.0) -> SampleDelta:
    return SampleDelta(before=[parse_samples(before)], after=[parse_samples(after)], seconds=seconds)


def test_a_rate_is_the_growth_per_second_over_all_processes() -> None:
    two = SampleDelta(
        before=[parse_samples(said(runs=10)), parse_samples(said(runs=100))],
        after=[parse_samples(said(runs=14)), parse_samples(said(runs=100))],
        seconds=2,
    )
    assert two.rate("runs_total") == two.rate("runs_total", lane="low") == 2
    assert two.rate("runs_total", lane="high") == 0


def test_a_process_that_was_started_again_counts_from_0() -> None:
    assert between(said(runs=1000), said(runs=6)).rate("runs_total") == 3


def test_a_series_that_is_new_counts_from_0() -> None:
    assert between(said(other=1), said(runs=4)).rate("runs_total") == 2


def test_only_processes_that_answered_both_times_are_compared() -> None:
    before = {"a": parse_samples(said(runs=1)), "b": None, "gone": parse_samples(said(runs=9))}
    after = {"a": parse_samples(said(runs=5)), "b": parse_samples(said(runs=500)), "new": parse_samples(said(runs=7))}
    assert delta(before, after, seconds=1).rate("runs_total") == 4


@pytest.mark.parametrize(
    ("share", "buckets", "expected"),
    [
        (0.5, [(1.0, 10.0), (2.0, 10.0), (float("inf"), 10.0)], 0.5),
        (0.9, [(1.0, 0.0), (2.0, 10.0), (float("inf"), 10.0)], 1.9),
        (0.99, [(1.0, 1.0), (float("inf"), 10.0)], 1.0),  # beyond the last bound nothing is known
        (0.5, [(1.0, 0.0), (float("inf"), 0.0)], None),
        (0.5, [], None),
    ],
)
def test_a_quantile_lies_where_prometheus_would_put_it(
    share: float, buckets: list[tuple[float, float]], expected: float | None
) -> None:
    assert quantile(share, buckets) == (None if expected is None else pytest.approx(expected))


def present(role: str, name: str, number: int) -> PresentProcess:
    return PresentProcess(address=f"127.0.0.1:{9100 + number}", role=role, name=name, silent_ms=0)


def operation_stats(*consumers: ConsumerStats) -> StreamStats:
    return replace(stats(*consumers, lanes=("capture", "void", "refund")), delayed=4)


def stats(*consumers: ConsumerStats, lanes: Sequence[str] = ("critical", "default", "low")) -> StreamStats:
    found = tuple(
        LaneStats(
            lane=name,
            length=7,
            pending=2,
            lag=5,
            consumers=1,
            last_id=None,
            last_delivered_id=None,
            oldest_ms=1_000,
        )
        for name in lanes
    )
    return StreamStats(
        stream="s", group="g", now_ms=4_000, lanes=found, consumers=consumers, delayed=3, next_due_ms=None, dead=1
    )


def look(at_s: float, answers: Mapping[PresentProcess, str | None], *consumers: ConsumerStats) -> Observation:
    return Observation(
        at_s=at_s,
        processes=list(answers),
        samples={one.address: None if text is None else parse_samples(text) for one, text in answers.items()},
        stats=stats(*consumers),
        oldest_due=timedelta(seconds=4),
        dead=12,
        waiting={Status.UNKNOWN: 5, Status.SUBMITTED: 6},
        providers=(),
        webhooks=None,
        trouble=(),
    )


def consumer(name: str, pending: int, idle_ms: int) -> ConsumerStats:
    return ConsumerStats(name=name, lane="low", pending=pending, idle_ms=idle_ms)


def test_a_picture_has_processes_in_trouble_first() -> None:
    well, silent = present("worker", "well", 1), present("worker", "silent", 2)
    cpu = "# TYPE process_cpu_seconds counter\nprocess_cpu_seconds_total {}\n"
    picture = build_picture(
        look(1, {well: cpu.format(1), silent: cpu.format(1)}),
        look(3, {well: cpu.format(2), silent: None}, consumer("well", 2, 10), consumer("dead", 9, 90_000)),
    )
    assert [(one.name, one.state, one.pending, one.cpu) for one in picture.processes] == [
        ("dead", "gone", 9, None),
        ("silent", "silent", None, None),
        ("well", "up", 2, 0.5),
    ]
    assert {(lane.waiting, lane.oldest_s) for lane in picture.lanes} == {(5, 3.0)}
    assert (picture.delayed, picture.dead, picture.unknown, picture.needs_review) == (3, 12, 5, 0)
    assert (picture.requires_action, picture.submitted, picture.providers) == (0, 6, [])


def drawn(picture: Picture, *, height: int) -> list[str]:
    console = Console(width=80, height=height, file=io.StringIO())
    with console.capture() as captured:
        console.print(render(picture, height=height))
    return captured.get().splitlines()


def lane_row(name: str) -> LaneRow:
    return LaneRow(
        lane=name,
        waiting=100_000,
        pending=100_000,
        oldest_s=36_000,
        published_per_s=12_345,
        settled_per_s=12_345,
        wait_p99_s=3600,
    )


def picture(
    processes: int,
    *,
    trouble: tuple[str, ...] = (),
    providers: tuple[ProviderRow, ...] = (),
    webhooks: WebhookRow | None = None,
    operations: OperationCounts | None = None,
) -> Picture:
    """Everything as wide as it gets. Without `operations` there was none."""
    return Picture(
        at=datetime.now(UTC),
        seconds=1,
        accepted_per_s=12_345,
        settled_per_s=12_345,
        charged_share=1,
        accept_p50_s=0.999,
        accept_p99_s=10,
        settle_p50_s=0.999,
        settle_p99_s=3600,
        call_p99_s=5,
        retries_per_s=12_345,
        take_overs_per_s=12_345,
        repairs_per_s=12_345,
        without_redis_per_s=12_345,
        deferred_per_s=12_345,
        delayed=123_456,
        dead=123_456,
        unknown=123_456,
        needs_review=1234,
        requires_action=123_456,
        submitted=123_456,
        authorized=1234,
        oldest_due_s=36_000,
        providers=providers,
        webhooks=webhooks,
        lanes=[lane_row(name) for name in ("critical", "default", "low")],
        operations=OperationsRow(
            lanes=[lane_row(name) for name in ("capture", "void", "refund")],
            delayed=123_456,
            counts=operations,
            settled_per_s=12_345,
            is_used=operations is not None,
        ),
        processes=[
            ProcessRow(
                name=f"a-machine-with-a-long-name.example.com-{number}",
                role="worker",
                state="silent",
                in_hand=100_000,
                pending=100_000,
                idle_s=36_000,
                settled_per_s=12_345,
                cpu=1,
            )
            for number in range(processes)
        ],
        trouble=trouble,
    )


@pytest.mark.parametrize("processes", [0, 1, 10, 200])
def test_it_fits_in_80_by_24(processes: int) -> None:
    lines = drawn(picture(processes, trouble=("Redis: " + "x" * 200, "Postgres: away")), height=24)
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for word in ("accepted 12,345/s", "settle p50 999 ms p99 60 min", "needs review 1,234", "critical", "60 min"):
        assert word in text
    assert text.count("silent") == min(processes, 7 if processes > 8 else 8)
    assert ("more" in text) == (processes > 8)
    assert text.count("…") == 1 + text.count("silent")  # names are cut, and what is wrong with Redis; no figure is


def test_a_picture_names_providers_that_are_switched_or_cannot_be_reached() -> None:
    well, cut_off = present("worker", "well", 1), present("worker", "cut off", 2)
    gauge = '# TYPE okane_provider_circuit_open gauge\nokane_provider_circuit_open{{provider="p",level="worker"}} {}\n'
    after = look(3, {well: gauge.format(0), cut_off: gauge.format(1)})
    rows = (ProviderState("q", "drain", "maintenance"), ProviderState("r"), ProviderState("s", open_s=2.5))
    found = build_picture(look(1, {}), replace(after, providers=rows)).providers
    assert [(one.name, one.mode, one.reason, one.open_s, one.workers_open) for one in found] == [
        ("p", "on", None, 0, 1),
        ("q", "drain", "maintenance", 0, 0),
        ("s", "on", None, 2.5, 0),
    ]


def test_such_providers_are_shown_above_all_and_take_their_lines_from_the_processes() -> None:
    rows = (
        ProviderRow(name="stripe", mode="off", open_s=0, workers_open=0, reason="their status page " * 9),
        ProviderRow(name="payu", mode="on", open_s=12, workers_open=3, reason=None),
    )
    lines = drawn(picture(200, providers=rows), height=24)
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("provider stripe: off (their status page")
    assert lines[1] == "provider payu: circuit open for 12 s, circuit open in 3 workers"


def webhooks_of(healthy: EndpointState, failing: EndpointState, disabled: EndpointState) -> WebhookOverview:
    states = {"healthy": healthy, "failing": failing, "disabled": disabled}
    return WebhookOverview(used=True, outbox_changes=12_345, outbox_oldest=SECOND, states=states)


def test_webhooks_take_a_line_from_the_processes_once_there_was_an_endpoint() -> None:
    overview = webhooks_of(
        EndpointState(endpoints=1_234, unowned=3, backlog=12_345, oldest=timedelta(hours=3)),
        EndpointState(endpoints=12, backlog=100_000, oldest=timedelta(hours=30)),
        EndpointState(endpoints=12, backlog=5),
    )
    lines = drawn(picture(200, webhooks=WebhookRow(overview=overview, delivered_per_s=1_234.0)), height=24)
    assert len(lines) <= 24
    [line] = [line for line in lines if line.startswith("webhooks")]
    assert line.startswith("webhooks 1,258 endpoints  3 unowned  12 failing  12 disabled  1,234/s")
    assert not any(line.startswith("webhooks") for line in drawn(picture(1), height=24))


def test_a_picture_has_what_dispatchers_deliver() -> None:
    dispatcher = present("dispatcher", "d1", 1)
    text = '# TYPE okane_webhook_requests counter\nokane_webhook_requests_total{{outcome="{}"}} {}\n'
    flights = "# TYPE okane_webhook_in_flight gauge\nokane_webhook_in_flight 7\n"
    before = look(1, {dispatcher: text.format("delivered", 0)})
    after = look(3, {dispatcher: text.format("delivered", 80) + flights})
    found = build_picture(before, replace(after, webhooks=webhooks_of(*[EndpointState(endpoints=1)] * 3)))
    assert found.webhooks is not None
    assert found.webhooks.delivered_per_s == 40
    assert found.to_json()["webhooks"]["delivered_per_s"] == 40
    assert [(one.role, one.in_hand, one.settled_per_s) for one in found.processes] == [("dispatcher", 7, 40)]
    assert build_picture(before, replace(after, webhooks=WebhookOverview())).webhooks is None


def counts_of(dead: int = 0, **statuses: int) -> OperationCounts:
    """Refunds in these statuses."""
    waiting = {(OperationKind.REFUND, OperationStatus(status)): count for status, count in statuses.items()}
    return OperationCounts(waiting=waiting, oldest_due=timedelta(seconds=45), dead=dead)


def test_operations_take_their_lines_from_the_processes_once_there_was_one() -> None:
    counts = counts_of(12, unknown=1_234, needs_review=1_234)
    lines = drawn(picture(200, operations=counts, trouble=("Redis: away",)), height=24)
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    [line] = [line for line in lines if line.startswith("operations")]
    assert line.startswith("operations  needs review 1,234  unknown 1,234  dead letters 12  oldest due 45 s")
    lanes = ["critical", "default", "low", "capture", "void", "refund"]
    assert [line.split()[0] for line in lines if line.split()[:1] and line.split()[0] in lanes] == lanes
    assert not any(line.startswith(("operations", "refund")) for line in drawn(picture(1), height=24))


def test_a_picture_has_the_lanes_and_counts_of_operations() -> None:
    worker = present("worker", "w1", 1)
    text = (
        '# TYPE okane_operations_settled counter\nokane_operations_settled_total{{kind="refund",status="success"}} {}\n'
    )
    before, after = look(1, {worker: text.format(10)}), look(3, {worker: text.format(30)}, consumer("w1", 2, 500))
    queue = operation_stats(consumer("w1", 3, 20), consumer("gone", 1, 9_000))
    found = build_picture(
        before, replace(after, operation_stats=queue, operations=counts_of(1, submitted=2, unknown=3))
    )
    assert [(lane.lane, lane.waiting, lane.pending) for lane in found.operations.lanes] == [
        ("capture", 5, 2),
        ("void", 5, 2),
        ("refund", 5, 2),
    ]
    # One worker reads both streams under one name.
    assert [(one.name, one.pending, one.idle_s) for one in found.processes] == [("gone", 1, 9.0), ("w1", 5, 0.02)]
    assert (found.operations.is_used, found.operations.settled_per_s, found.operations.delayed) == (True, 10, 4)
    shown = found.to_json()["operations"]
    assert shown["waiting"]["refund"]["unknown"] == 3
    assert (shown["dead"], shown["oldest_due_s"], [lane["lane"] for lane in shown["lanes"]]) == (
        1,
        45,
        ["capture", "void", "refund"],
    )
    assert not build_picture(look(1, {}), look(3, {})).operations.is_used


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (counts_of(), "operations  oldest due 45 s  delayed 4"),
        (counts_of(submitted=2), "operations  oldest due 45 s  delayed 4"),
        (counts_of(unknown=1), "operations  unknown 1  oldest due 45 s  delayed 4"),
        (counts_of(2, needs_review=1), "operations  needs review 1  dead letters 2  oldest due 45 s  delayed 4"),
        (None, "operations  delayed 4"),
    ],
)
def test_the_line_of_operations_says_what_is_wrong(counts: OperationCounts | None, expected: str) -> None:
    assert operation_summary.line(counts, delayed=4) == expected
    assert counts is None or counts.in_trouble == ("unknown" in expected or "dead" in expected)


@pytest.mark.parametrize(
    ("failing", "disabled", "unowned", "expected"),
    [
        (0, 0, 0, "webhooks 2 endpoints  backlog 7, oldest 45 s"),
        (1, 0, 0, "webhooks 3 endpoints  1 failing  backlog 7, oldest 45 s"),
        (0, 2, 0, "webhooks 4 endpoints  2 disabled  backlog 7, oldest 45 s"),
        (0, 0, 1, "webhooks 2 endpoints  1 unowned  backlog 7, oldest 45 s"),
        (0, 0, 2, "webhooks 2 endpoints  no dispatcher  backlog 7, oldest 45 s"),
    ],
)
def test_the_line_of_status_says_what_is_wrong(failing: int, disabled: int, unowned: int, expected: str) -> None:
    healthy = EndpointState(endpoints=2, unowned=unowned, backlog=7, oldest=timedelta(seconds=45))
    found = webhooks_of(healthy, EndpointState(endpoints=failing), EndpointState(endpoints=disabled))
    found = replace(found, outbox_changes=0)
    assert webhook_summary.line(found) == expected
    assert webhook_summary.in_trouble(found) == bool(failing or disabled or unowned)


def test_nothing_moves_when_the_figures_change() -> None:
    busy = picture(2)
    quiet_lanes = [
        replace(lane, waiting=0, pending=0, oldest_s=None, published_per_s=0.0, settled_per_s=1.5, wait_p99_s=0.001)
        for lane in busy.lanes
    ]
    other_way_round = [
        replace(one, idle_s=0.001, settled_per_s=0.0, cpu=0.0, in_hand=0, pending=0) for one in reversed(busy.processes)
    ]
    quiet = replace(
        busy,
        accepted_per_s=0.0,
        settled_per_s=0.0,
        settle_p50_s=0.001,
        settle_p99_s=None,
        oldest_due_s=None,
        lanes=quiet_lanes,
        processes=other_way_round,
    )

    def places(shown: Picture) -> list[int]:
        text = drawn(shown, height=24)
        words = ("accept p50", "oldest due", "settle p50", "delayed")
        head = [line.index(word) for word in words for line in text if word in line]
        tables = [line.index(word) for word in ("waited", "CPU") for line in text if word in line]
        return head + tables + [number for number, line in enumerate(text) if "com-0" in line]

    assert places(quiet) == places(busy)


def test_what_is_not_known_is_a_dash() -> None:
    nothing = Observation(
        at_s=1,
        processes=(),
        samples={},
        stats=None,
        oldest_due=None,
        dead=None,
        waiting=None,
        providers=(),
        webhooks=None,
        trouble=("Redis: away",),
    )
    later = Observation(**{**{name: getattr(nothing, name) for name in Observation.__slots__}, "at_s": 2.0})
    text = "\n".join(drawn(build_picture(nothing, later), height=24))
    assert "Redis: away" in text
    assert "oldest due -" in text
    assert "no processes" in text


@pytest.fixture
async def worker(redis_url: str) -> AsyncIterator[tuple[Stream, OkaneMetrics]]:
    """The metrics of a worker that is on the list, and of another that died."""
    stream, metrics = payments_stream(f"test-{uuid4()}"), OkaneMetrics(CollectorRegistry())

    async def no_processes() -> tuple[PresentProcess, ...]:
        return ()

    sources = MetricsSources(
        process=metrics.registry,
        system=SystemMetrics(CollectorRegistry()).registry,
        refreshes=(),
        processes=no_processes,
        name="test",
    )
    runner = web.AppRunner(build_metrics_app(sources), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with connect(redis_url) as redis:
        presence = Presence(redis, stream)
        await presence.announce(f"127.0.0.1:{runner.addresses[0][1]}", role="worker", name="w1")
        await presence.announce("127.0.0.1:1", role="worker", name="w2")
    yield stream, metrics
    await runner.cleanup()


async def top(database_url: str, redis_url: str, stream: Stream, *arguments: str) -> str:
    servers = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "OKANE_STREAM": stream.name}
    done = await run_okane_beside("top", "--once", *arguments, env={**os.environ, **servers, "COLUMNS": "80"})
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_the_command_tells_rates_processes_and_what_waits(
    worker: tuple[Stream, OkaneMetrics], database_url: str, redis_url: str
) -> None:
    stream, metrics = worker
    store = PaymentStore(database_url, actor="test", lease=LEASE, grace=GRACE)
    payment = (await accept_one(store, new("k"))).payment
    await store.bury(payment.id, reason="poison")
    await store.aclose()
    async with connect(redis_url) as redis:
        producer = Producer(redis, stream)
        await producer.publish(payment.id.bytes, lane="low")
        await producer.aclose()
        of_operations = operations_stream(Settings(_env_file=None, stream=stream.name).operations_stream_name)
        producer = Producer(redis, of_operations)
        await producer.publish(uuid4().bytes, lane="refund")
        await producer.aclose()
    counting = asyncio.ensure_future(count(metrics))
    seen: dict[str, Any] = json.loads(await top(database_url, redis_url, stream, "--json"))
    text = await top(database_url, redis_url, stream)
    counting.cancel()
    assert seen["settled_per_s"] > 0
    assert seen["charged_share"] == 1
    assert (seen["dead"], seen["needs_review"], seen["trouble"]) == (1, 1, [])
    assert [(one["name"], one["state"]) for one in seen["processes"]] == [("w2", "silent"), ("w1", "up")]
    assert [lane["waiting"] for lane in seen["lanes"]] == [0, 0, 1]
    assert [(lane["lane"], lane["waiting"]) for lane in seen["operations"]["lanes"]] == [
        ("capture", 0),
        ("void", 0),
        ("refund", 1),
    ]
    assert (seen["operations"]["dead"], seen["operations"]["oldest_due_s"]) == (0, 0)
    assert "dead letters 1" in text
    assert "operations  oldest due -  settled 0/s  delayed 0" in text
    assert "silent" in text


async def count(metrics: OkaneMetrics) -> None:
    while True:
        metrics.settled.labels("success").inc()
        await asyncio.sleep(0.01)


async def test_the_command_says_what_is_away(database_url: str, free_port: int) -> None:
    text = await top(database_url, f"redis://127.0.0.1:{free_port}/0", payments_stream("any"))
    assert "Redis: " in text
    assert "dead letters 0" in text
