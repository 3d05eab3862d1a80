"""`okane up` and the Express receiver of docs/webhooks.md, with a killed dispatcher and a receiver that is away."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from uuid import UUID

import pytest

from tests.interop.receivers import PACKAGES
from tests.interop.whole_system import Plan, compare, run

# What the machine of a developer may have set is not what this test is about.
FOREIGN = ("DATABASE_URL", "REDIS_URL", "REDIS_ADDR", "PROVIDER_BASE_URL", "PROVIDERS_FILE", "PORT", "MODE", "AUTH")


@pytest.mark.timeout(600)
async def test_every_event_arrives_verified_and_in_order() -> None:
    PACKAGES.prepare()
    foreign = {*FOREIGN, *(f"OKANE_{name}" for name in FOREIGN)}
    env = {name: value for name, value in os.environ.items() if name not in foreign}
    found = await run(Plan(payments=300, rate=60, kills=2, away_s=2), env)
    assert found.is_right, found
    assert found.events >= 300


A, B = UUID(int=10), UUID(int=11)
A2, A4, B2 = f"evt_{A.hex}_2", f"evt_{A.hex}_4", f"evt_{B.hex}_2"
FAILED_THEN_PAID = {A2: "payment.retry_scheduled", A4: "payment.succeeded"}


@pytest.mark.parametrize(
    ("logged", "arrived", "wrong"),
    [
        (FAILED_THEN_PAID, [A2, A4], {}),
        (FAILED_THEN_PAID, [A2, A4, A2, A4], {"repeats": 2}),
        (FAILED_THEN_PAID, [A2], {"missing": 1}),
        (FAILED_THEN_PAID, [A4, A2], {"out_of_order": 1}),
        (FAILED_THEN_PAID, [A2, B2, A4], {"unknown": 1}),
        ({A2: "payment.retry_scheduled"}, [A2], {"unlogged": 1}),
    ],
)
def test_the_comparison_of_the_log_and_the_requests(
    logged: Mapping[str, str], arrived: Sequence[str], wrong: Mapping[str, int]
) -> None:
    lines = [line for id_ in arrived for line in (f"verified {id_}", "payment.succeeded ...")]
    found = compare(logged, {str(A): "success"}, lines)
    names = ("missing", "unknown", "out_of_order", "refused", "unlogged", "repeats")
    assert {name: count for name in names if (count := getattr(found, name))} == wrong
    assert found.is_right == (wrong.keys() <= {"repeats"})


def test_a_refused_request_fails_the_comparison() -> None:
    assert not compare({A4: "payment.succeeded"}, {}, [f"verified {A4}", "refused"]).is_right
