"""A real system, tortured in earnest: short enough for every push, long enough for every kind of fault."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import psutil
import pytest
from rich.console import Console

from okane.errors import SetupError
from tests.forked_process import ForkedOkaneProcess, start_server
from torture.options import TortureOptions
from torture.run import run_torture
from torture.system import program_factory

KILLS, PAYMENTS = 50, 4_000  # 40 are over before a process of each kind was killed, where no other test runs beside it
OKANE = [sys.executable, "-P", "-m", "okane"]


@pytest.fixture(autouse=True)
def forked_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the processes of okane, which are started some hundred times; torture itself starts each anew."""
    start_server()
    monkeypatch.setattr(program_factory, "OkaneProcess", ForkedOkaneProcess)


@pytest.mark.timeout(900)
async def test_a_tortured_system_loses_doubles_and_sticks_nothing() -> None:
    console = Console(file=io.StringIO(), width=200)
    before = set(psutil.Process().children())
    # The machine may be slow and have other things to do: it may take its time to come to rest.
    options = TortureOptions(kills=KILLS, payments=PAYMENTS, rate=100, seed=1, rest_s=300)
    report = await run_torture(options, console)
    assert isinstance(console.file, io.StringIO)
    told = console.file.getvalue()

    assert report.holds, told
    assert report.exit_code == 0
    assert (report.lost, report.doubled, report.wrong, report.stuck) == (0, 0, 0, 0)
    assert report.kill_count >= KILLS
    assert report.acknowledged >= PAYMENTS
    assert len(report.faults) >= 16, told
    assert not set(report.faults) & set(report.impossible)
    assert {"api", "worker", "dispatcher", "provider", "redis", "postgres"} <= set(report.kills), told
    assert report.webhooks > PAYMENTS, told
    # Operations that all wait for a review break no invariant.
    assert report.operations["success"] > 20 * report.operations.get("needs_review", 0), told
    assert {"canceled done", "retried done"} <= set(report.decisions), told
    assert len(report.failpoints) >= 5, told
    assert report.orphans_settled_calm is not None, told
    assert report.orphans_settled_calm.count > 0
    assert {judgement.name for judgement in report.judgements if not judgement.judged} == {"I11"}
    assert "all invariants hold" in told
    json.dumps(report.to_json())
    assert set(psutil.Process().children()) <= before


@pytest.mark.timeout(300)
async def test_without_faults_the_sweep_has_next_to_nothing_to_do() -> None:
    console = Console(file=io.StringIO())
    # A machine that is busy for a second or two loses no wake-up.
    patient = {"OKANE_SWEEP_GRACE": "20s"}
    report = await run_torture(TortureOptions(payments=500, rate=100, faults=("none",), settings=patient), console)
    assert report.holds, report.judgements
    assert (report.kill_count, dict(report.faults), dict(report.errors)) == (0, {}, {})
    judged = {judgement.name: judgement.judged for judgement in report.judgements}
    assert judged["I11"] >= 500
    assert judged["I13"] >= 500
    assert report.webhook_repeats == 0


@pytest.mark.timeout(300)
async def test_promotions_of_postgres_and_redis_lose_nothing() -> None:
    console = Console(file=io.StringIO(), width=200)
    faults = ("postgres_promotion", "postgres_promotion_unfenced", "sentinel_promotion")
    options = TortureOptions(
        postgres="standby", redis="sentinel", minutes=0.4, rate=60, faults=faults, seed=1, rest_s=200
    )
    report = await run_torture(options, console)
    assert isinstance(console.file, io.StringIO)
    told = console.file.getvalue()
    assert report.holds, told
    assert (report.lost, report.doubled, report.wrong, report.stuck) == (0, 0, 0, 0)
    assert "sentinel_promotion" in report.faults, told
    assert not report.failed, told
    assert report.promoted is not None
    assert report.redis_back is not None
    assert report.redis_lost is not None


@pytest.mark.timeout(300)
async def test_a_broken_cluster_of_redis_loses_nothing() -> None:
    console = Console(file=io.StringIO(), width=200)
    faults = ("cluster_promotion", "cluster_silent", "cluster_failover", "slot_moved")
    options = TortureOptions(redis="cluster", minutes=0.3, rate=60, faults=faults, seed=1, rest_s=200)
    report = await run_torture(options, console)
    assert isinstance(console.file, io.StringIO)
    told = console.file.getvalue()
    assert report.holds, told
    assert (report.lost, report.doubled, report.wrong, report.stuck) == (0, 0, 0, 0)
    assert len(report.faults) >= 2, told
    assert not report.failed, told
    assert report.redis_back is not None


async def test_a_fault_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SetupError, match="no fault plague"):
        await run_torture(TortureOptions(faults=("plague",)), Console(file=io.StringIO()))


async def test_a_fault_that_strikes_nothing_of_this_run_is_refused() -> None:
    for fault, redis, told in (
        ("postgres_promotion", "one", "postgres_promotion needs --postgres standby"),
        ("sentinel_promotion", "one", "sentinel_promotion needs --redis sentinel"),
        ("slot_moved", "sentinel", "slot_moved needs --redis cluster"),
        ("redis_split", "sentinel", "redis_split strikes nothing here"),
    ):
        with pytest.raises(SetupError, match=told):
            await run_torture(TortureOptions(faults=(fault,), redis=redis), Console(file=io.StringIO()))


def test_what_cannot_be_run_ends_with_2() -> None:
    done = subprocess.run([*OKANE, "torture", "--faults", "plague"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "okane: there is no fault plague: see --list-faults\n")


def test_faults_are_listed_with_what_they_need() -> None:
    done = subprocess.run([*OKANE, "torture", "--list-faults", "--json"], capture_output=True, text=True, check=True)
    faults = {fault["name"]: fault for fault in json.loads(done.stdout)}
    assert len(faults) >= 30
    assert faults["kill_worker"]["impossible"] is None
    assert "root" in faults["postgres_disk_full"]["needs"]
