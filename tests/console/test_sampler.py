"""The sampler: at most one sample every two seconds for all tabs, none without a viewer, and servers that are away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import aiohttp
import pytest

from okane.console import charts
from okane.console.outages import Outages
from okane.console.overview import Verdict, judge
from okane.console.sampler import FORGET_S, INTERVAL_S, Sampler
from okane.errors import StoreSlow, StoreUnavailable
from okane.lanes import payments_stream
from okane.monitoring import observation
from okane.monitoring.observation import Observation, Observer
from okane.monitoring.samples import Labels
from okane.redis.presence import Presence, PresentProcess
from okane.store import Overview
from streams import Inspector, LaneStats, StreamStats, connect

BEGIN = datetime(2026, 11, 30, 8, tzinfo=UTC)
WORKER = PresentProcess(address="127.0.0.1:9101", role="worker", name="worker-1", silent_ms=20)


def stats(pending: int = 0) -> StreamStats:
    lanes = [
        LaneStats(
            lane=name,
            length=pending,
            pending=pending,
            lag=0,
            consumers=1,
            last_id=None,
            last_delivered_id=None,
            oldest_ms=None,
        )
        for name in payments_stream("test").lane_names
    ]
    return StreamStats(
        stream="test", group="workers", now_ms=0, lanes=tuple(lanes), consumers=(), delayed=0, next_due_ms=None, dead=0
    )


class System:
    """A system whose state and time a test sets. `observed` counts the samples."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.observed = 0
        self.settled = 0.0
        self.stats: StreamStats | None = stats()
        self.oldest_due: timedelta | None = timedelta(0)
        self.processes: tuple[PresentProcess, ...] = (WORKER,)
        self.is_postgres_heard = True
        self.outages = Outages.none(self.now, lambda: self.now_s)
        self.sampler = Sampler(self.observe, now=self.now, outages=self.outages, clock=lambda: self.now_s)

    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=self.now_s)

    async def observe(self, _known: Sequence[PresentProcess]) -> Observation:
        self.observed += 1
        await asyncio.sleep(0)
        samples: Mapping[tuple[str, Labels], float] = {
            ("okane_payments_settled_total", frozenset({("status", "success")})): self.settled
        }
        return Observation(
            at_s=self.now_s,
            processes=self.processes,
            samples={one.address: samples for one in self.processes},
            stats=self.stats,
            oldest_due=self.oldest_due,
            dead=0,
            waiting={},
            providers=(),
            webhooks=None,
            trouble=(),
            is_postgres_heard=self.is_postgres_heard and self.oldest_due is not None,
        )


async def test_all_tabs_share_one_sample_every_two_seconds() -> None:
    system = System()
    first, second = await asyncio.gather(system.sampler.current(), system.sampler.current())
    assert first is second is await system.sampler.current()
    assert system.observed == 1
    system.now_s += INTERVAL_S
    assert await system.sampler.current() is not first
    assert system.observed == 2


async def test_a_tab_that_leaves_does_not_end_the_sample_of_another() -> None:
    system = System()
    leaving = asyncio.create_task(system.sampler.current())
    staying = asyncio.create_task(system.sampler.current())
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying).at == system.now()


async def test_a_failed_sample_fails_for_its_tabs_and_is_taken_again() -> None:
    system = System()

    async def fail(_known: Sequence[PresentProcess]) -> Observation:
        raise OSError("no sockets")

    sampler = Sampler(fail, now=system.now)
    for _ in range(2):
        with pytest.raises(OSError, match="no sockets"):
            await sampler.current()


async def test_rates_are_those_since_the_sample_before() -> None:
    system = System()
    assert not (await system.sampler.current()).has_rates
    system.now_s, system.settled = system.now_s + 2, 100
    sample = await system.sampler.current()
    assert (sample.has_rates, sample.picture.settled_per_s) == (True, 50)
    assert [point.settled_per_s for point in sample.points] == [None, 50]


async def test_after_a_pause_the_rates_begin_anew() -> None:
    system = System()
    await system.sampler.current()
    system.now_s, system.settled = system.now_s + FORGET_S + 1, 1_000_000
    sample = await system.sampler.current()
    assert (sample.has_rates, sample.points[-1].settled_per_s) == (False, None)


async def test_a_server_that_is_away_is_named_with_the_time_since_when() -> None:
    system = System()
    await system.sampler.current()
    system.stats = system.oldest_due = None
    since = []
    for _ in range(2):
        system.now_s += 2
        sample = await system.sampler.current()
        since.append((sample.redis_away_since, sample.postgres_away_since))
    assert since == [(BEGIN + timedelta(seconds=102),) * 2] * 2
    system.stats, system.oldest_due, system.now_s = stats(), timedelta(0), system.now_s + 2
    sample = await system.sampler.current()
    assert (sample.redis_away_since, sample.postgres_away_since) == (None, None)


async def judged(system: System) -> Verdict:
    system.now_s += 2
    return judge(await system.sampler.current())


async def test_the_verdict_agrees_with_what_another_page_has_noticed_of_postgres() -> None:
    system = System()
    system.is_postgres_heard = False  # the facts are those before
    assert await judged(system) is Verdict.IDLE
    system.outages.postgres.notice()
    assert await judged(system) is Verdict.POSTGRES_AWAY
    system.is_postgres_heard = True
    assert await judged(system) is Verdict.IDLE


async def test_the_verdict_names_the_most_urgent_trouble() -> None:
    system = System()
    assert await judged(system) is Verdict.IDLE
    system.stats = stats(pending=3)
    assert await judged(system) is Verdict.MOVING
    system.oldest_due = timedelta(minutes=2)
    assert await judged(system) is Verdict.LATE
    system.processes = ()
    assert await judged(system) is Verdict.NO_WORKER
    system.stats = None
    assert await judged(system) is Verdict.REDIS_AWAY
    system.oldest_due = None
    assert await judged(system) is Verdict.POSTGRES_AWAY


def test_a_chart_breaks_its_line_where_a_value_is_missing() -> None:
    chart = charts.draw([0, 10, None, 5, 10])
    assert chart.lines == ("0.0,28.0 25.0,2.0", "75.0,15.0 100.0,2.0")
    assert (chart.last, chart.least, chart.most) == (10, 0, 10)


def test_a_chart_of_nothing_and_of_zeros_can_be_drawn() -> None:
    assert charts.draw([]).lines == charts.draw([None, None]).lines == ()
    assert charts.draw([0.0, 0.0]).lines == ("0.0,28.0 100.0,28.0",)
    assert charts.draw([7.0]).lines == ()


@asynccontextmanager
async def observing(
    redis_url: str, overview: Overview, *, patience_s: float, facts_s: float = 0.0
) -> AsyncIterator[Observer]:
    """An observer of a stream of its own, with this Postgres."""
    stream = payments_stream(f"test-{uuid4()}")
    async with connect(redis_url) as redis, aiohttp.ClientSession() as http:
        observer = Observer(
            inspector=Inspector(redis, stream, group="workers"),
            presence=Presence(redis, stream),
            overview=overview,
            http=http,
            facts_s=facts_s,
            patience_s=patience_s,
        )
        yield observer
        await observer.aclose()
    await overview.aclose()


async def test_a_postgres_that_hangs_counts_as_away_until_it_answers(redis_url: str) -> None:
    answers, reads = asyncio.Event(), 0

    class Hanging(Overview):
        async def oldest_due(self) -> timedelta:
            nonlocal reads
            reads += 1
            await answers.wait()
            raise StoreUnavailable("it was ended")

    async with observing(redis_url, Hanging("postgresql://nowhere"), patience_s=0.0) as observer:
        for _ in range(3):
            found = await observer.observe(())
            assert (found.oldest_due, found.trouble) == (None, ("Postgres: no answer in time",))
            assert found.stats is not None
        assert reads == 1
        answers.set()
        await asyncio.sleep(0)
        assert (await observer.observe(())).trouble == ("Postgres: it was ended",)
        await observer.observe(())


@pytest.mark.parametrize(
    ("fresh_s", "patience_s", "is_known"), [(3600.0, 3600.0, True), (3600.0, 0.0, False), (0.0, 0.0, False)]
)
async def test_facts_that_are_late_are_those_before_for_a_while(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, fresh_s: float, patience_s: float, is_known: bool
) -> None:
    """With a million payments in trouble a count takes a second: a page neither waits for it nor calls Postgres away."""
    answers = asyncio.Event()

    class Slow(Overview):
        async def oldest_due(self) -> timedelta:
            await answers.wait()
            return timedelta(seconds=7)

    async def nothing(_self: Overview) -> Sequence[object]:
        return ()

    for name in ("count_dead", "count_waiting", "providers", "webhooks", "count_waiting_operations", "count_disputes"):
        monkeypatch.setattr(Overview, name, nothing)
    async with observing(redis_url, Slow("postgresql://nowhere"), facts_s=5.0, patience_s=60.0) as observer:
        answers.set()
        assert (await observer.observe(())).oldest_due == timedelta(seconds=7)
        answers.clear()
        monkeypatch.setattr(observation, "FRESH_S", fresh_s)
        monkeypatch.setattr(observation, "LATE_FACTS_S", 0.0)
        observer._due.forget()  # its read is due
        observer._patience_s = patience_s
        found = await observer.observe(())
        assert (found.oldest_due, found.is_postgres_heard) == (timedelta(seconds=7) if is_known else None, False)
        assert found.trouble == (() if is_known else ("Postgres: no answer in time",))


async def test_a_postgres_that_takes_long_to_count_is_not_away(redis_url: str) -> None:
    class Slow(Overview):
        async def oldest_due(self) -> timedelta:
            return timedelta(seconds=3)

        async def count_dead(self) -> int:
            raise StoreSlow("canceling statement due to statement timeout")

    async with observing(redis_url, Slow("postgresql://nowhere"), patience_s=5.0) as observer:
        found = await observer.observe(())
        assert (found.oldest_due, found.dead) == (timedelta(seconds=3), None)
        assert found.trouble == ("Postgres: canceling statement due to statement timeout",)
        assert found.is_postgres_heard
