"""The harness of every peer: publish jobs with 64 callers, then consume them, and count every execution.

Standard library only: it runs in the interpreters of others.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import importlib.util
import json
import time
from collections.abc import Awaitable, Callable

CALLERS = 64
_LATE_S = 0.2  # a job that is executed twice may be so after the last one
_PATIENCE_S = 120.0


class Tally:
    """Counts executions; the clock runs from the first tenth to the last job, so that no start-up is in it."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.count = 0
        self.per_s = 0.0  # known when it is done
        self.done = asyncio.Event()
        self._began: tuple[float, int] | None = None
        self._created_s = time.perf_counter()

    def executed(self, count: int = 1) -> None:
        """So many jobs more have been executed. On the loop's thread."""
        self.count += count
        if self._began is None and self.count * 10 >= self.jobs:
            self._began = time.perf_counter(), self.count
        if self.count >= self.jobs and not self.done.is_set():
            self.per_s = self._rate()
            self.done.set()

    def _rate(self) -> float:
        assert self._began is not None
        began_s, began_at = self._began
        if began_at == self.count:  # a single batch
            began_s, began_at = self._created_s, 0
        return (self.count - began_at) / (time.perf_counter() - began_s)


async def by_callers(jobs: int, send: Callable[[int], Awaitable[object]]) -> None:
    """`send(number)` for every job, each caller one at a time."""

    async def call(first: int) -> None:
        for number in range(first, jobs, CALLERS):
            await send(number)

    await asyncio.gather(*(call(first) for first in range(CALLERS)))


def run(
    package: str, publish: Callable[[str, int], Awaitable[None]], consume: Callable[[str, Tally], Awaitable[None]]
) -> None:
    """Measure both and print it. `consume` starts a worker and returns once `tally.done` is set, with the worker stopped."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--redis", required=True)
    parser.add_argument("--jobs", type=int, required=True)
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        result = runner.run(_measure(options.redis, options.jobs, publish, consume))
    print(json.dumps({"version": _version(package), **result}))


async def _measure(
    url: str,
    jobs: int,
    publish: Callable[[str, int], Awaitable[None]],
    consume: Callable[[str, Tally], Awaitable[None]],
) -> dict[str, float]:
    started_s = time.perf_counter()
    await publish(url, jobs)
    published_s = time.perf_counter() - started_s
    tally = Tally(jobs)
    async with asyncio.timeout(_PATIENCE_S):
        await consume(url, tally)
    await asyncio.sleep(_LATE_S)
    return {"published_per_s": jobs / published_s, "consumed_per_s": tally.per_s, "executed": tally.count}


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    if importlib.util.find_spec("uvloop") is None:
        return asyncio.new_event_loop
    import uvloop  # noqa: PLC0415 - not every interpreter has it

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
