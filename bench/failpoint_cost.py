"""Measure the cost of a failpoint that is not armed: `python -m bench.failpoint_cost`."""

from __future__ import annotations

import statistics
import time

from streams.failpoints import failpoint

ROUNDS = 15
TURNS = 1_000_000
POINT = failpoint("bench.nowhere", "never armed")


def main() -> None:
    """Print the nanoseconds per look at an unarmed point, against the same loop without it."""
    costs = [_loop_with() - _loop_without() for _ in range(ROUNDS)]
    print(f"{statistics.median(costs):.1f} ns for an unarmed failpoint (median of {ROUNDS} rounds of {TURNS:,})")


def _loop_with() -> float:
    started = time.perf_counter_ns()
    for _ in range(TURNS):
        if POINT.armed:
            raise AssertionError
    return (time.perf_counter_ns() - started) / TURNS


def _loop_without() -> float:
    started = time.perf_counter_ns()
    for _ in range(TURNS):
        pass
    return (time.perf_counter_ns() - started) / TURNS


if __name__ == "__main__":
    main()
