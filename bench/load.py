"""Generates load on an API: `wrk` where this machine has it, else a client of our own. Only answers of 202 count."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from okane.local.ports import LOOPBACK

Generator = Literal["wrk", "client"]

_SCRIPT = Path(__file__).with_name("post.lua")
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The result of one run of a generator. Latencies are the client's, over all answers."""

    accepted: int
    other: int
    broken: int
    elapsed_s: float
    p50_ms: float
    p99_ms: float

    @property
    def per_s(self) -> float:
        return self.accepted / self.elapsed_s


def best_generator() -> Generator:
    return "wrk" if shutil.which("wrk") else "client"


def generate(ports: Sequence[int], *, connections: int, seconds: float, generator: Generator | None = None) -> Load:
    """POST new payments to all of `ports` for so long, every connection waiting for its answer before it sends again."""
    share = max(1, connections // len(ports))
    make = _wrk if (generator or best_generator()) == "wrk" else _client
    return _run([make(port, connections=share, seconds=seconds) for port in ports])


def drip(port: int, *, rate: float, seconds: float, connections: int = 64) -> Load:
    """POST so many new payments a second, whether or not answers come."""
    return _run([[*_client(port, connections=connections, seconds=seconds), "--rate", str(rate)]])


def charges_per_s(port: int, *, seconds: float, connections: int = 64) -> float:
    """Return the charges per second that a provider answers."""
    seen = _run([[*_client(port, connections=connections, seconds=seconds), "--charges"]])
    return seen.other / seen.elapsed_s


def _run(commands: Sequence[Sequence[str]]) -> Load:
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=_ROOT)  # noqa: S603 - a program of ours
        for command in commands
    ]
    seen = [_result(process) for process in running]
    return Load(
        accepted=round(sum(one["accepted"] for one in seen)),
        other=round(sum(one["other"] for one in seen)),
        broken=round(sum(one["broken"] for one in seen)),
        elapsed_s=max(one["elapsed_s"] for one in seen),
        p50_ms=statistics.mean(one["p50_ms"] for one in seen),
        p99_ms=max(one["p99_ms"] for one in seen),
    )


def _wrk(port: int, *, connections: int, seconds: float) -> list[str]:
    threads = min(2, connections, os.cpu_count() or 1)
    wrk = ["wrk", "-t", str(threads), "-c", str(connections), "-d", f"{max(1, round(seconds))}s", "--timeout", "10s"]
    return [*wrk, "-s", str(_SCRIPT), f"http://{LOOPBACK}:{port}", "--", _prefix()]


def _client(port: int, *, connections: int, seconds: float) -> list[str]:
    client = [sys.executable, "-P", "-m", "bench.client", "--port", str(port), "--prefix", _prefix()]
    return [*client, "--connections", str(connections), "--seconds", str(seconds)]


def _prefix() -> str:
    """Return a prefix for the keys of one run: they must be new to the database."""
    return secrets.token_hex(6)


def _result(process: subprocess.Popen[str]) -> dict[str, float]:
    output, errors = process.communicate()
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if process.returncode or not lines:
        raise RuntimeError(f"the load generator failed: {errors or output}")
    seen: dict[str, float] = json.loads(lines[-1])
    return seen
