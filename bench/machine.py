"""The machine that the figures were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psutil

from okane.local.postgres_binaries import find_programs
from okane.local.redis_server import find_binary


def facts() -> Mapping[str, str]:
    """The machine and the versions, by name."""
    redis = find_binary()
    return {
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "cpu": _cpu_model(),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "postgres": _postgres_version(),
        "redis": f"{redis.make} {'.'.join(map(str, redis.version))}",
        "aiohttp": importlib.metadata.version("aiohttp"),
        "load average": " ".join(f"{one:.1f}" for one in os.getloadavg()),
    }


def describe() -> str:
    """The facts in one line."""
    return ", ".join(f"{name} {value}" for name, value in facts().items())


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _postgres_version() -> str:
    program = find_programs(None) / "postgres"
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)  # noqa: S603 - our own
    return done.stdout.split()[2]
