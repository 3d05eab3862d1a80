"""Providers that are away, switched off, or out of one worker's reach: payments wait, and nothing is burned or doubled."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path

from okane.local.ports import free_port
from okane.local.redis_server import RedisServer
from tests.flow.system import System
from tests.forked_process import run_okane_beside

ALWAYS = ("--unavailable", "0", "--decline", "0")
OPEN = 'okane_provider_circuit_open{level="worker",provider="http"}'
OPEN_FOR_ALL = 'okane_provider_circuit_open{level="shared",provider="http"}'
OLDEST_DUE = "okane_oldest_due_seconds"


async def switch(system: System, *words: str) -> str:
    """Run `okane providers`."""
    done = await run_okane_beside("providers", *words, env={**os.environ, **system.env})
    assert done.returncode == 0, done.stderr
    return done.stdout


async def until(condition: Callable[[], Awaitable[bool]], *, within_s: float = 60) -> None:
    async with asyncio.timeout(within_s):
        while not await condition():
            await asyncio.sleep(0.05)


async def failed_calls(system: System, worker: str) -> float:
    labels = 'call="charge",outcome="unavailable",provider="http"'
    return await system.metric(worker, f"okane_provider_attempts_total{{{labels}}}")


async def test_payments_wait_for_a_provider_that_is_away_and_burn_few_retries(system: System) -> None:
    """Three attempts within a second would be spent long before it is back."""
    system.env |= {"MAX_RETRIES": "2"}
    await system.start("w1", provider=ALWAYS)
    await system.kill("provider")
    ids = await system.pay(60)

    async def is_open() -> bool:
        return await system.metric("w1", OPEN) == 1

    await until(is_open)
    opened = await failed_calls(system, "w1")

    async def has_probed() -> bool:
        return await failed_calls(system, "w1") >= opened + 2  # after a second, and after two more

    await until(has_probed)
    await system.start_provider(*ALWAYS)
    assert await system.settled(ids, within_s=90) == Counter(success=60)
    await system.check(ids)
    events = [line["event"] for line in system.log("w1")]
    assert events.count("circuit_opened") == events.count("circuit_closed") == 1


async def test_a_worker_that_alone_cannot_reach_the_provider_leaves_the_payments_to_others(system: System) -> None:
    await system.start("w1", provider=ALWAYS)
    await system.start_worker("w2", OKANE_PROVIDER_BASE_URL=f"http://127.0.0.1:{free_port()}")
    ids = await system.pay(300, pause_s=0.01)
    assert await system.settled(ids, within_s=90) == Counter(success=300)
    assert await system.metric("w2", OPEN) == 1
    assert await failed_calls(system, "w2") < 100
    assert await system.metric("w1", OPEN) == await system.metric("w1", OPEN_FOR_ALL, "/metrics/system") == 0
    await system.check(ids)


async def test_a_disabled_provider_is_not_called_with_redis_away_too(
    system_own_redis: tuple[System, RedisServer],
) -> None:
    system, redis = system_own_redis
    await system.start("w1", provider=ALWAYS)
    assert await switch(system, "disable", "http", "--reason", "incident") == "http is off: incident\n"
    ids = await system.pay(5, prefix="with")
    await asyncio.to_thread(redis.kill)
    ids += await system.pay(5, prefix="without")

    async def due_for_long() -> bool:
        return await system.metric("w1", OLDEST_DUE, "/metrics/system") > 3  # with the grace they would have run

    await until(due_for_long)
    assert await system.captures() == Counter()
    assert {(await system.payment(payment_id))["attempts"] for payment_id in ids} == {0}
    await switch(system, "enable", "http", "--reason", "over")
    assert await system.settled(ids, within_s=60) == Counter(success=10)
    redis.start()
    await system.check_books(ids)  # the wake-ups of the wait are delayed for half a minute


async def test_a_drained_provider_begins_no_charge_and_its_payments_follow_when_it_is_enabled(system: System) -> None:
    await system.start("w1", provider=ALWAYS)
    await switch(system, "drain", "http", "--reason", "maintenance")
    ids = await system.pay(5)

    async def refused() -> bool:
        return await system.metric("w1", 'okane_claims_total{result="no_provider"}') >= 5

    await until(refused)
    assert await system.captures() == Counter()
    assert '"mode": "drain"' in await switch(system, "ls", "--json")
    await switch(system, "enable", "http", "--reason", "over")
    assert await system.settled(ids) == Counter(success=5)
    await system.check_books(ids)  # the wake-ups of the wait are delayed for half a minute


async def test_workers_share_the_rate_limit_of_a_provider(system: System, tmp_path: Path) -> None:
    """Eighty payments at twenty a second, whatever the number of workers; what is put off burns no retry."""
    system.env |= {"OKANE_PROVIDERS_FILE": str(tmp_path / "providers.toml"), "MAX_RETRIES": "0"}
    text = f'[providers.slow]\nkind = "okane_http"\nbase_url = "{system.provider_url}"\ntimeout = "1s"\nrate = "20/s"\n'
    (tmp_path / "providers.toml").write_text(text)
    await system.start("w1", "w2", provider=ALWAYS)
    ids = await system.pay(80)
    assert await system.settled(ids, within_s=90) == Counter(success=80)
    times = sorted(
        datetime.fromisoformat(line["at"]) for line in await system.journal() if line["status"] == "captured"
    )
    assert timedelta(seconds=3) < times[-1] - times[0]
    await system.check(ids)


async def test_running_processes_take_a_changed_providers_file(system: System, tmp_path: Path) -> None:
    """The new rate counts without a restart: under the old one the second payment would wait for an hour."""
    path = tmp_path / "providers.toml"
    system.env |= {"OKANE_PROVIDERS_FILE": str(path)}
    text = f'[providers.slow]\nkind = "okane_http"\nbase_url = "{system.provider_url}"\ntimeout = "1s"\n'
    path.write_text(text + 'rate = "1/h"\n')
    await system.start("w1", provider=ALWAYS)
    (tmp_path / "new.toml").write_text(text + 'connections = 9\nrate = "500/s"\n')
    (tmp_path / "new.toml").rename(path)

    async def taken() -> bool:
        lines = [
            (name, line["event"], line.get("taken") or line.get("changed"))
            for name in ("w1", "api")
            for line in system.log(name)
            if line["event"].startswith("providers_file_")
        ]
        restart = ("providers_file_needs_restart", ["providers.slow.connections"])
        return lines == [("w1", "providers_file_changed", ["providers.slow.rate"]), ("w1", *restart), ("api", *restart)]

    await until(taken)
    ids = await system.pay(20)
    assert await system.settled(ids) == Counter(success=20)
    await system.check(ids)
