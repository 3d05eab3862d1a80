"""The metrics server of a process: its own metrics, those of the whole system, and the targets for Prometheus."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from okane.api.metrics_endpoint import MetricsSources, build_metrics_app, targets
from okane.app.metrics_server import _listening_for_metrics
from okane.app.system_metrics import SystemMetrics
from okane.config import Settings
from okane.errors import SetupError
from okane.metrics import OkaneMetrics
from okane.redis.presence import PresentProcess
from streams import METRICS, StreamUnavailable
from streams.prometheus import PrometheusMetrics

LONG_AGO_MS = 60_000


def present(role: str, name: str, port: int, *, silent_ms: int = 0) -> PresentProcess:
    return PresentProcess(address=f"127.0.0.1:{port}", role=role, name=name, silent_ms=silent_ms)


class Told:
    """A served metrics app over lists that a test changes."""

    def __init__(self) -> None:
        self.process = OkaneMetrics(CollectorRegistry())
        self.system = SystemMetrics(CollectorRegistry())
        self.library = PrometheusMetrics(
            prefix="okane", registry=self.process.registry, shared=self.system.registry
        ).for_stream("test", ("critical", "low"))
        self.processes: Sequence[PresentProcess] | None = []
        self.refreshed = 0

    async def refresh(self) -> None:
        self.refreshed += 1

    async def listed(self) -> Sequence[PresentProcess]:
        if self.processes is None:
            raise StreamUnavailable("away")
        return self.processes


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def client(told: Told) -> AsyncIterator[aiohttp.ClientSession]:
    sources = MetricsSources(
        process=told.process.registry,
        system=told.system.registry,
        refreshes=(told.refresh,),
        processes=told.listed,
        name="test",
    )
    runner = web.AppRunner(build_metrics_app(sources), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
        yield session
    await runner.cleanup()


async def text(client: aiohttp.ClientSession, path: str) -> str:
    async with client.get(path) as response:
        assert response.status == 200
        return await response.text()


async def test_a_process_tells_nothing_that_others_tell_too(told: Told, client: aiohttp.ClientSession) -> None:
    told.system.up.labels("redis").set(1)
    own, whole = await text(client, "/metrics"), await text(client, "/metrics/system")
    shared = {f"okane_{name}" for name, spec in METRICS.items() if spec.shared} | {
        "okane_oldest_due_seconds",
        "okane_payments_waiting",
        "okane_payments_dead",
        "okane_disputes_to_answer",
        "okane_partitions_ahead_seconds",
        "okane_dependency_up",
        "okane_provider_mode",
        "okane_reconcile_age_seconds",
        "okane_reconcile_differences",
        "okane_provider_circuit_open",
    }
    names = Counter(line.split()[2] for line in (own + whole).splitlines() if line.startswith("# TYPE"))
    # Each process has the worker level of a circuit breaker, with the label `level`, and the system the shared one.
    assert {name for name, times in names.items() if times > 1} == {"okane_provider_circuit_open"}
    shared |= {
        f"okane_webhook_{name}"
        for name in (
            "outbox_changes",
            "outbox_oldest_seconds",
            "endpoints",
            "unowned_endpoints",
            "backlog_events",
            "oldest_seconds",
            "failing_seconds",
            "log_bytes",
            "retention_used_ratio",
        )
    }
    assert {line.split()[2] for line in whole.splitlines() if line.startswith("# TYPE")} == shared


async def test_only_the_whole_system_is_read_anew(told: Told, client: aiohttp.ClientSession) -> None:
    await text(client, "/metrics")
    assert told.refreshed == 0
    await text(client, "/metrics/system")
    await text(client, "/metrics/system")
    assert told.refreshed == 2


async def test_events_that_have_not_happened_show_as_0(client: aiohttp.ClientSession) -> None:
    own = (await text(client, "/metrics")).splitlines()
    for sample in (
        'okane_payments_settled_total{status="unknown"}',
        'okane_payments_settled_total{status="needs_review"}',
        'okane_late_results_total{event="unknown"}',
        'okane_sweep_repairs_total{lane="low"}',
        'okane_direct_runs_total{lane="critical"}',
        'okane_messages_reclaimed_total{lane="low",stream="test"}',
        'okane_leases_lost_total{stream="test"}',
    ):
        assert f"{sample} 0.0" in own
    assert not [line for line in own if "_created" in line]
    assert [line for line in own if line.startswith("process_start_time_seconds ")]


async def test_prometheus_finds_every_process(told: Told, client: aiohttp.ClientSession) -> None:
    told.processes = [present("api", "api", 9101), present("worker", "w1", 9102, silent_ms=LONG_AGO_MS)]
    async with client.get("/http_sd") as response:
        assert response.content_type == "application/json"
        groups = await response.json()
    assert [(group["targets"], group["labels"]["__metrics_path__"]) for group in groups] == [
        (["127.0.0.1:9101"], "/metrics"),
        (["127.0.0.1:9102"], "/metrics"),  # dead: its `up` will be 0
        (["127.0.0.1:9101"], "/metrics/system"),
    ]
    assert groups[1]["labels"]["process"] == "w1"


async def test_without_a_list_of_processes_prometheus_keeps_its_targets(
    told: Told, client: aiohttp.ClientSession
) -> None:
    told.processes = None
    async with client.get("/http_sd") as response:
        assert response.status == 503


def test_one_that_lives_tells_of_the_whole_system_under_an_address_that_stays() -> None:
    def whole(*processes: PresentProcess) -> list[dict[str, Any]]:
        return [group for group in targets(processes, system="s") if group["labels"]["role"] == "system"]

    [before] = whole(present("api", "api", 1), present("worker", "w", 2))
    [after] = whole(present("api", "api", 1, silent_ms=LONG_AGO_MS), present("worker", "w", 2))
    assert (before["targets"], after["targets"]) == (["127.0.0.1:1"], ["127.0.0.1:2"])
    assert before["labels"]["instance"] == after["labels"]["instance"] == "s"
    assert whole(present("api", "api", 1, silent_ms=LONG_AGO_MS)) == []


async def test_an_address_that_is_not_of_this_machine_is_named_and_not_tried_on_every_port() -> None:
    settings = Settings(_env_file=None, metrics_host="203.0.113.9")
    async with contextlib.AsyncExitStack() as closing:
        with pytest.raises(SetupError, match=r"OKANE_METRICS_HOST: cannot listen on 203\.0\.113\.9:9101"):
            await _listening_for_metrics(settings, web.Application(), closing)


async def test_a_scraper_can_choose_samples_by_name(client: aiohttp.ClientSession) -> None:
    chosen = await text(client, "/metrics?name[]=okane_payments_accepted_total&name[]=process_cpu_seconds_total")
    names = {line.split("{")[0].split()[0] for line in chosen.splitlines() if not line.startswith("#")}
    assert names == {"okane_payments_accepted_total", "process_cpu_seconds_total"}
    assert not (await text(client, "/metrics?name[]=unknown")).strip()
