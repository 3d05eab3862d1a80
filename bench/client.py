"""Our own load generator: `python -m bench.client --port N`, prints one line of JSON as post.lua does.

As fast as it goes (where there is no `wrk`): every connection sends its next request when it has its answer. Or at a steady
`--rate`, whether or not answers come: a latency counts from the moment a request was to be sent, so that a server that
stalls cannot make it look short.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
from collections import Counter, deque
from collections.abc import Callable

import uvloop

from bench.http_client import Connection, charge, post

Make = Callable[[str, int], bytes]  # a request of this prefix and number

_PREPARED_PER_S = 40_000  # made before the clock starts: more than this process can send
_BROKEN = 0
_LAST_ANSWERS_S = 10.0


class Tally:
    """Statuses and latencies, as long as it is open."""

    def __init__(self) -> None:
        self.statuses = Counter[int]()
        self.latencies_s: list[float] = []
        self.open = True

    def count(self, status: int, latency_s: float) -> None:
        if self.open:
            self.statuses[status] += 1
            self.latencies_s.append(latency_s)

    def result(self, elapsed_s: float) -> dict[str, float]:
        ordered = sorted(self.latencies_s) or [0.0]
        accepted, broken = self.statuses[202], self.statuses[_BROKEN]
        return {
            "accepted": accepted,
            "other": self.statuses.total() - accepted - broken,
            "broken": broken,
            "elapsed_s": elapsed_s,
            "p50_ms": ordered[len(ordered) // 2] * 1000,
            "p99_ms": ordered[len(ordered) * 99 // 100] * 1000,
        }


class Caller:
    """One connection. It calls back when its request has been answered."""

    def __init__(self, tally: Tally, on_free: Callable[[Caller], None]) -> None:
        self._tally = tally
        self._on_free = on_free
        self._due_s = 0.0
        self._connection: Connection | None = None

    async def open(self, port: int) -> None:
        self._connection = await Connection.open(port, self._answered, self._lost)

    def send(self, request: bytes, due_s: float) -> None:
        assert self._connection is not None
        self._due_s = due_s
        self._connection.send(request)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _answered(self, status: int) -> None:
        self._tally.count(status, time.perf_counter() - self._due_s)
        self._on_free(self)

    def _lost(self) -> None:
        self._tally.count(_BROKEN, 0.0)


class Flood:
    """Every connection always has a request in flight."""

    def __init__(self, *, make: Make, prefix: str, seconds: float, connections: int) -> None:
        self.tally = Tally()
        self._seconds = seconds
        self._requests = iter([make(prefix, number) for number in range(int(seconds * _PREPARED_PER_S) + connections)])
        self._callers = [Caller(self.tally, self._send_next) for _ in range(connections)]

    async def run(self, port: int) -> float:
        """The seconds that it took."""
        await asyncio.gather(*(caller.open(port) for caller in self._callers))
        started_s = time.perf_counter()
        for caller in self._callers:
            self._send_next(caller)
        await asyncio.sleep(self._seconds)
        self.tally.open = False
        elapsed_s = time.perf_counter() - started_s
        for caller in self._callers:
            caller.close()
        return elapsed_s

    def _send_next(self, caller: Caller) -> None:
        request = next(self._requests, None)
        if request is not None and self.tally.open:
            caller.send(request, time.perf_counter())


class Drip:
    """So many requests a second, on whichever connection is free."""

    def __init__(self, *, make: Make, prefix: str, seconds: float, connections: int, rate: float) -> None:
        self.tally = Tally()
        self._rate = rate
        self._requests = [make(prefix, number) for number in range(max(1, int(seconds * rate)))]
        self._callers = [Caller(self.tally, self._freed) for _ in range(connections)]
        self._free: deque[Caller] = deque()
        self._late: deque[tuple[bytes, float]] = deque()
        self._sent_all = False
        self._all_answered = asyncio.Event()

    async def run(self, port: int) -> float:
        """The seconds until all were sent."""
        await asyncio.gather(*(caller.open(port) for caller in self._callers))
        self._free.extend(self._callers)
        started_s = time.perf_counter()
        for number, request in enumerate(self._requests):
            early_s = started_s + number / self._rate - time.perf_counter()
            if early_s > 0:
                await asyncio.sleep(early_s)
            self._send(request, time.perf_counter())
        elapsed_s = time.perf_counter() - started_s
        await self._answered()
        self.tally.open = False
        for caller in self._callers:
            caller.close()
        return elapsed_s

    async def _answered(self) -> None:
        """Wait for the last answers, but not for ever."""
        self._sent_all = True
        self._check_answered()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_ANSWERS_S):
                await self._all_answered.wait()

    def _check_answered(self) -> None:
        if self._sent_all and len(self._free) == len(self._callers):
            self._all_answered.set()

    def _send(self, request: bytes, due_s: float) -> None:
        if self._free:
            self._free.popleft().send(request, due_s)
        else:
            self._late.append((request, due_s))

    def _freed(self, caller: Caller) -> None:
        if self._late:
            caller.send(*self._late.popleft())
        else:
            self._free.append(caller)
            self._check_answered()


async def _generate(options: argparse.Namespace) -> tuple[float, Tally]:
    make, prefix = charge if options.charges else post, options.prefix
    seconds, connections = options.seconds, options.connections
    generator: Flood | Drip
    if options.rate is None:
        generator = Flood(make=make, prefix=prefix, seconds=seconds, connections=connections)
    else:
        generator = Drip(make=make, prefix=prefix, seconds=seconds, connections=connections, rate=options.rate)
    return await generator.run(options.port), generator.tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--prefix", required=True, help="of the idempotency keys; no other run may have it")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rate", type=float, help="requests a second (default: as fast as it goes)")
    parser.add_argument("--charges", action="store_true", help="charge at a provider instead: its answers are of 200")
    elapsed_s, tally = uvloop.run(_generate(parser.parse_args()))
    print(json.dumps(tally.result(elapsed_s)))


if __name__ == "__main__":
    main()
