"""The commands as they are given."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-P", "-m", *command], cwd=cwd, capture_output=True, text=True, check=False)


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
def test_payments_settle_without_redis() -> None:
    done = _run("bench.without_redis", "--payments", "300", "--rounds", "1", "--workers", "1")
    assert done.returncode == 0, done.stderr
    for scenario in ("with Redis", "killed before", "killed after"):
        assert f"{scenario:<14}" in done.stdout


@pytest.mark.timeout(300)
def test_the_cost_of_a_scrape_is_told() -> None:
    done = _run("bench.scrape_cost", "--workers", "3")
    assert done.returncode == 0, done.stderr
    for path in ("/metrics, one worker ", "/metrics/system ", "/http_sd "):
        assert path in done.stdout
    assert "3 workers, every 15 s: " in done.stdout


@pytest.mark.timeout(300)
def test_the_cost_of_traces_is_told() -> None:
    done = _run("bench.tracing_cost", "--rounds", "1", "--seconds", "1", "--rate", "20", "--before", ".")
    assert done.returncode == 0, done.stderr
    for mode in ("before", "off", "1 %", "100 %"):
        assert f"{mode:<8} " in done.stdout


@pytest.mark.timeout(300)
def test_two_versions_are_compared_side_by_side() -> None:
    done = _run("bench.versions", "--before", str(ROOT), "--only", "a", "--quick", "--json")
    assert done.returncode == 0, done.stderr
    figures = {figure["name"]: figure["median"] for figure in json.loads(done.stdout)["parts"]["a"]["figures"]}
    assert figures["end to end, now vs before"] == figures["now"] / figures["before"]
    assert figures["all together, now vs before"] > 0
    refused = _run("bench.versions", "--before", "/nowhere")
    assert (refused.returncode, "is no checkout of okane" in refused.stderr) == (2, True)
