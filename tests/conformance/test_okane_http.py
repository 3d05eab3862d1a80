"""okane's own protocol passes the suite: the cases do not ask for more than the pipeline needs."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.conformance import okane_http
from tests.conformance.bench import bench_of
from tests.conformance.cases import CASES, Case
from tests.conformance.gateway import Gateway

# Its protocol has neither a customer nor soft declines.
LACKING = ("soft", "customer")


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with okane_http.gateway() as one:
        yield one


@pytest.mark.parametrize(
    "case", [one for one in CASES if not any(word in one.__name__ for word in LACKING)], ids=lambda one: one.__name__
)
async def test_the_adapter_of_okanes_protocol(case: Case, gateway: Gateway) -> None:
    async with bench_of(gateway) as bench:
        await case(bench)
