"""The watch over the providers' rows: what a worker writes there, and what it copies into its gates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from okane.errors import StoreUnavailable
from okane.metrics import OkaneMetrics
from okane.providers.base import Approved, LookUpResult, Unavailable, Unknown
from okane.providers.breaker import BreakerRules
from okane.store.providers import ProviderStore
from okane.worker.provider_gate import ProviderGates
from okane.worker.provider_watch import ProviderWatch, WorkerCount
from streams import StreamUnavailable

MOST = 10
TIMED_OUT, NO_CONNECTION = Unknown("timed out"), Unavailable("refused")


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[ProviderStore]:
    one = ProviderStore(database_url)
    yield one
    await one.aclose()


class Host:
    """One worker's gates and watch."""

    def __init__(self, store: ProviderStore, name: str = "w1", *, workers: int = 2) -> None:
        metrics = OkaneMetrics(CollectorRegistry())
        self.gates = ProviderGates(["p"], metrics=metrics, rules=BreakerRules(first_open_s=30))
        self.watch = ProviderWatch(self.gates, store=store, name=name, count=WorkerCount(workers=workers))

    def calls(self, result: LookUpResult, times: int = 20) -> None:
        for _ in range(times):
            self.gates.by_name["p"].record(result)


async def open_s(store: ProviderStore) -> float:
    return sum(one.open_s for one in await store.read_all())


async def test_without_trouble_nothing_is_written(store: ProviderStore) -> None:
    host = Host(store)
    host.calls(Approved("ch_1"), 100)
    await host.watch.run_once()
    assert await store.read_all() == []
    assert host.gates.capacity(MOST) == MOST


async def test_a_host_that_lost_its_own_way_stops_no_other(store: ProviderStore) -> None:
    cut_off, other = Host(store, "w1"), Host(store, "w2")
    cut_off.calls(NO_CONNECTION)
    await cut_off.watch.run_once()
    await other.watch.run_once()
    assert await store.read_all() == []
    assert (cut_off.gates.capacity(MOST), other.gates.capacity(MOST)) == (0, MOST)


async def test_two_workers_whose_calls_fail_stop_all(store: ProviderStore) -> None:
    hosts = [Host(store, f"w{number}", workers=3) for number in range(3)]
    for host in hosts[:2]:
        host.calls(TIMED_OUT)
        await host.watch.run_once()
    await hosts[2].watch.run_once()
    assert await open_s(store) > 0
    assert hosts[2].gates.capacity(MOST) == 0


async def test_the_only_worker_stops_all_alone(store: ProviderStore) -> None:
    host = Host(store, workers=1)
    host.calls(TIMED_OUT)
    await host.watch.run_once()
    assert await open_s(store) > 0


async def test_a_worker_that_does_not_know_the_others_waits_for_a_second_one(store: ProviderStore) -> None:
    host = Host(store, workers=0)
    host.calls(TIMED_OUT)
    await host.watch.run_once()
    assert await open_s(store) == 0


async def test_a_breaker_that_opens_once_is_written_once(store: ProviderStore, database_url: str) -> None:
    host = Host(store)
    host.calls(TIMED_OUT)
    await host.watch.run_once()
    [first] = await store.read_all()
    for _ in range(3):
        host.calls(TIMED_OUT)
        await host.watch.run_once()
    [last] = await store.read_all()
    assert last.suspected_at == first.suspected_at


async def test_a_good_call_ends_what_the_worker_wrote(store: ProviderStore) -> None:
    host = Host(store, workers=1)
    host.calls(Unavailable("401", fault="config"), 1)
    await host.watch.run_once()
    assert await open_s(store) > 0
    host.gates.by_name["p"].has_recovered = True
    await host.watch.run_once()
    assert await open_s(store) == 0


async def test_the_switch_is_copied(store: ProviderStore) -> None:
    host = Host(store)
    for mode, capacity in (("off", 0), ("drain", MOST), ("on", MOST)):
        await store.set_mode("p", mode, reason="test", actor="operator")  # type: ignore[arg-type]  # a loop over modes
        await host.watch.run_once()
        assert host.gates.capacity(MOST) == capacity


async def test_a_suspicion_outlives_an_outage_of_postgres(
    store: ProviderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(store, workers=1)
    host.calls(TIMED_OUT)

    async def away(name: str, *, worker: str, alone: bool) -> bool:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(store, "suspect", away)
        with pytest.raises(StoreUnavailable):
            await host.watch.run_once()
    await host.watch.run_once()
    assert await open_s(store) > 0


async def test_it_runs_until_it_is_stopped_and_at_once_after_a_change(store: ProviderStore) -> None:
    host, stop = Host(store, workers=1), asyncio.Event()
    running = asyncio.create_task(host.watch.run(stop))
    host.calls(TIMED_OUT)
    async with asyncio.timeout(10):
        while not await open_s(store):
            await asyncio.sleep(0.02)
    stop.set()
    await running


async def test_the_count_of_workers_stays_while_redis_is_away() -> None:
    answers: list[int | None] = [3, None, 4]

    async def ask() -> int:
        answer = answers.pop(0)
        if answer is None:
            raise StreamUnavailable("away")
        return answer

    count = WorkerCount(ask)
    seen = [count.workers]
    for _ in range(3):
        await count.refresh()
        seen.append(count.workers)
    assert seen == [0, 3, 3, 4]
