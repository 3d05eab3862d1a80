"""Part c: `streams` alone, with jobs that do nothing, against a bare loop and against other libraries."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.options import PARTS, BenchOptions
from bench.progress import say
from bench.report import Collector, Part
from bench.system import System

VS_LOOP = "consume: streams / bare loop"
VS_BEST = "consume: streams / best peer"
BATCH_VS_BATCH = "consume in batches: streams / FastStream"
PUBLISH_VS_LOOP = "publish, 64 callers: streams / bare loop"

_ROOT = Path(__file__).parents[2]
_SLOW_SHARE = 5  # peers get a fifth of the jobs: all of them would take minutes


@dataclass(frozen=True, slots=True)
class Entrant:
    """A program of bench/peers. `package` is what a foreign one needs, and that it is compared as a peer."""

    name: str
    module: str
    package: str | None = None


LOOP = Entrant("bare redis-py loop", "redis_loop")
STREAMS = Entrant("streams", "streams_handler")
STREAMS_BATCH = Entrant("streams in batches", "streams_batch")
FASTSTREAM_BATCH = Entrant("FastStream in batches", "faststream_batch", "faststream")
PEERS = (
    Entrant("FastStream", "faststream_peer", "faststream"),
    Entrant("taskiq-redis", "taskiq_peer", "taskiq_redis"),
    Entrant("arq", "arq_peer", "arq"),
    Entrant("saq", "saq_peer", "saq"),
    Entrant("dramatiq", "dramatiq_peer", "dramatiq"),
)


def measure(system: System, options: BenchOptions) -> Part:
    """Each entrant in a process of its own, in turns, on an empty Redis."""
    found = Collector("c", PARTS["c"])
    entrants = [LOOP, STREAMS, STREAMS_BATCH, *_present(found, options)]
    for number in range(options.rounds):
        for entrant in entrants:
            say(f"c: {entrant.name}, round {number + 1}")
            _measure_one(found, system, entrant, options)
    found.ratio(VS_LOOP, of="streams", to="bare redis-py loop")
    found.ratio(PUBLISH_VS_LOOP, of="streams, publish", to="bare redis-py loop, publish")
    found.ratio(BATCH_VS_BATCH, of="streams in batches", to="FastStream in batches")
    medians = found.medians()
    if peers := {peer.name: medians[peer.name] for peer in PEERS if peer.name in medians}:
        best = max(peers, key=lambda name: peers[name])
        found.ratio(VS_BEST, of="streams", to=best)
        found.note(f"the best peer is {best}")
    return found.part()


def _present(found: Collector, options: BenchOptions) -> list[Entrant]:
    """Return the libraries that can be measured here, and name the others."""
    entrants = [entrant for entrant in (FASTSTREAM_BATCH, *PEERS) if _installed(entrant, options.peers)]
    if absent := [entrant.name for entrant in (FASTSTREAM_BATCH, *PEERS) if entrant not in entrants]:
        found.note(
            f"not installed, so not measured: {', '.join(absent)}. To have them: python3 -m venv {options.peers} &&"
            f" {options.peers}/bin/pip install --require-hashes -r requirements-bench.txt"
        )
    return entrants


def _installed(entrant: Entrant, peers: Path) -> bool:
    python = peers / "bin" / "python"
    if not python.exists():
        return False
    check = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({entrant.package!r}) is None)"
    return subprocess.run([python, "-I", "-c", check], check=False).returncode == 0  # noqa: S603 - our own command


def _measure_one(found: Collector, system: System, entrant: Entrant, options: BenchOptions) -> None:
    with system.redis_client() as client:
        client.flushall()
    python = sys.executable if entrant.package is None else str(options.peers / "bin" / "python")
    slow = entrant.package is not None and entrant is not FASTSTREAM_BATCH
    jobs = max(100, options.jobs // _SLOW_SHARE) if slow else options.jobs
    seen = _run(python, entrant.module, system.redis.url, jobs)
    found.add(entrant.name, "jobs/s", float(seen["consumed_per_s"]))
    found.add(f"{entrant.name}, publish", "jobs/s", float(seen["published_per_s"]))
    if entrant.package is not None:
        found.note(f"{entrant.name} is version {seen['version']}")
    if seen["executed"] != jobs:
        found.note(f"{entrant.name} executed {seen['executed']:,} of {jobs:,} jobs")


def _run(python: str, module: str, url: str, jobs: int) -> Mapping[str, float | str]:
    command = [python, "-m", f"bench.peers.{module}", "--redis", url, "--jobs", str(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=_ROOT, check=False)  # noqa: S603 - our own command
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise RuntimeError(f"{module} failed: {done.stderr[-2000:]}")
    seen: Mapping[str, float | str] = json.loads(lines[-1])
    return seen
