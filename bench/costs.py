"""CPU time and memory by kind of process. The processes of a server count together, ended ones included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import psutil

from bench.system import Deployment, Provider, System
from okane.local.server import Server

Pids = Mapping[str, Sequence[int]]  # kind -> the roots of its processes

OURS = ("API", "workers", "Postgres", "Redis")


def pids_of(system: System, deployment: Deployment, provider: Provider) -> Pids:
    """The processes at work, by kind."""
    return {
        "API": [_pid(one) for one in deployment.apis],
        "workers": [_pid(one) for one in deployment.workers],
        "Postgres": [_pid(system.postgres)],
        "Redis": [_pid(system.redis)],
        "provider": [_pid(provider.process)],
        **({"dispatchers": [_pid(one) for one in deployment.dispatchers]} if deployment.dispatchers else {}),
    }


def pids_of_server(kind: str, server: Provider) -> Pids:
    """The processes of a server beside them."""
    return {kind: [_pid(server.process)]}


def cpu_s(pids: Pids) -> Mapping[str, float]:
    """Seconds of CPU since each kind was started, system time included."""
    return {kind: sum(_tree_cpu_s(root) for root in roots) for kind, roots in pids.items()}


def memory_mb(pids: Pids) -> Mapping[str, float]:
    """Memory of each kind, what processes share counted once."""
    return {
        kind: sum(_memory_bytes(process) for root in roots for process in _tree(root)) / 2**20
        for kind, roots in pids.items()
    }


def _pid(server: Server) -> int:
    assert server.child is not None
    return server.child.pid


def _tree_cpu_s(root: int) -> float:
    ended = psutil.Process(root).cpu_times()
    return ended.children_user + ended.children_system + sum(_own_cpu_s(process) for process in _tree(root))


def _own_cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


def _tree(root: int) -> Iterator[psutil.Process]:
    process = psutil.Process(root)
    yield process
    yield from process.children(recursive=True)


def _memory_bytes(process: psutil.Process) -> int:
    try:
        # Proportional: Postgres' shared buffers belong to all of its processes together.
        full = process.memory_full_info()
        return int(getattr(full, "pss", full.rss))
    except psutil.AccessDenied:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
