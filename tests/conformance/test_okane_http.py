"""okane's own protocol and the skeleton of an adapter pass the suite: no case asks for more than the pipeline needs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conformance import okane_http, operation_cases
from tests.conformance.bench import bench_of
from tests.conformance.cases import CASES, Case
from tests.conformance.gateway import Gateway

ROOT = Path(__file__).parents[2]
# Its protocol has no customer, no soft declines and no notices.
LACKING = ("soft", "customer", "notice")


@pytest.fixture(params=[okane_http.gateway, okane_http.skeleton], ids=["okane_http", "skeleton"])
async def gateway(request: pytest.FixtureRequest) -> AsyncIterator[Gateway]:
    async with request.param() as one:
        yield one


@pytest.mark.parametrize(
    "case", [one for one in CASES if not any(word in one.__name__ for word in LACKING)], ids=lambda one: one.__name__
)
async def test_the_adapters_of_okanes_protocol(case: Case, gateway: Gateway) -> None:
    async with bench_of(gateway) as bench:
        await case(bench)


@pytest.mark.parametrize("case", operation_cases.CASES, ids=lambda one: one.__name__)
async def test_the_operations_of_okanes_protocol(case: Case) -> None:
    async with okane_http.gateway() as gateway, bench_of(gateway) as bench:
        await case(bench)


def test_the_skeleton_in_the_documents_is_the_one_that_is_tested() -> None:
    [block] = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / "docs" / "providers.md").read_text(), re.DOTALL | re.MULTILINE
    )
    assert block == (ROOT / "tests" / "conformance" / "skeleton.py").read_text()
    assert block.count("\n") < 150
