"""The commands as they are given."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import tracing_cost, without_redis

ROOT = Path(__file__).parents[2]
RunHere = Callable[..., str]


def _run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-P", "-m", *command], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunHere:
    """Run a benchmark in this process, whose okane processes are forked; return its output."""

    def run(main: Callable[[], None], *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["bench", *arguments])
        main()
        return capsys.readouterr().out

    return run


def test_okane_bench_measures_and_prints_json(tmp_path: Path) -> None:
    done = _run("okane", "bench", "--only", "c", "--quick", "--json", "--peers", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["quick"] is True
    assert {"cores", "cpu", "python", "postgres", "redis", "load average"} <= set(said["machine"])
    assert [figure["name"] for figure in said["parts"]["c"]["figures"]][:2] == [
        "bare redis-py loop",
        "bare redis-py loop, publish",
    ]


def test_a_part_that_does_not_exist_is_a_usage_error() -> None:
    done = _run("okane", "bench", "--only", "z")
    assert done.returncode == 2
    assert "no part z" in done.stderr


@pytest.mark.timeout(300)
def test_the_backlog_is_drained_and_redis_asked_what_was_slow() -> None:
    done = _run("bench.backlog", "--payments", "1500", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "1,500 payments, 1,500 of them with a wake-up: " in done.stdout
    assert "the slowest Redis command took " in done.stdout
    assert "evalsha" in done.stdout


@pytest.mark.timeout(300)
def test_payments_settle_without_redis(run_here: RunHere) -> None:
    said = run_here(without_redis.main, "--payments", "300", "--rounds", "1", "--workers", "1")
    for scenario in ("with Redis", "killed before", "killed after"):
        assert f"{scenario:<14}" in said


@pytest.mark.timeout(300)
def test_the_cost_of_a_scrape_is_told() -> None:
    done = _run("bench.scrape_cost", "--workers", "3")
    assert done.returncode == 0, done.stderr
    for path in ("/metrics, one worker ", "/metrics/system ", "/http_sd "):
        assert path in done.stdout
    assert "3 workers, every 15 s: " in done.stdout


@pytest.mark.timeout(300)
def test_the_cost_of_traces_is_told(run_here: RunHere) -> None:
    said = run_here(tracing_cost.main, "--rounds", "1", "--seconds", "1", "--rate", "20", "--before", str(ROOT))
    for mode in ("before", "off", "1 %", "100 %"):
        assert f"{mode:<8} " in said
