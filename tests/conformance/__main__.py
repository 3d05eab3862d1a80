"""`python -m tests.conformance --provider module:factory`: every case against one adapter, with a line for each.

The cases of charges come first, then those of the operations that the adapter is capable of.

The factory is an async context manager that yields a `Gateway`, as `tests.conformance.stripe:gateway` does.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

import pytest

from tests.conformance.bench import TIMEOUT, bench_of
from tests.conformance.cases import CASES, Case
from tests.conformance.gateway import Gateway
from tests.conformance.operation_cases import cases_of

MAX_CALLS = 300  # of charges, and as many of operations


async def run(factory: Callable[[], AbstractAsyncContextManager[Gateway]], wanted: str) -> int:
    """Run the cases whose name contains `wanted`; return how many failed."""
    async with factory() as gateway:
        provider = gateway.provider(gateway.url, timeout=TIMEOUT)
        operations = cases_of(provider.traits.capabilities, keys=gateway.takes_operation_keys)
        await provider.aclose()
        return sum([await _suite(cases, gateway, wanted) for cases in (CASES, operations)])


async def _suite(cases: Sequence[Case], gateway: Gateway, wanted: str) -> int:
    failed = calls = 0
    for case in cases:
        if wanted not in case.__name__:
            continue
        verdict, made = await _verdict(case, gateway)
        calls += made
        failed += verdict.startswith("FAILED")
        sys.stdout.write(f"{verdict:<8} {case.__name__.replace('_', ' ')}\n")
    sys.stdout.write(f"{gateway.name}: {failed} failed, {calls} calls\n")
    if calls > MAX_CALLS:
        sys.stdout.write(f"more than {MAX_CALLS} calls: an adapter must need fewer\n")
        failed += 1
    return failed


async def _verdict(case: Case, gateway: Gateway) -> tuple[str, int]:
    calls = 0
    try:
        async with bench_of(gateway) as bench:
            try:
                await case(bench)
            finally:
                calls = len(bench.proxy.requests)
    except pytest.skip.Exception as skipped:
        sys.stdout.write(f"         ({skipped})\n")
        return "skipped", calls
    except Exception:
        sys.stdout.write(traceback.format_exc())
        return "FAILED", calls
    return "passed", calls


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--provider", required=True, metavar="MODULE:FACTORY")
    parser.add_argument("--case", default="", help="only the cases with this in their name")
    arguments = parser.parse_args()
    module, _, name = arguments.provider.partition(":")
    factory = getattr(importlib.import_module(module), name)
    sys.exit(1 if asyncio.run(run(factory, arguments.case)) else 0)


if __name__ == "__main__":
    main()
