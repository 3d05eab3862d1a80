"""`okane up --stripe` as a newcomer runs it: payments, declines, 3-D Secure, a worker killed by -9, and the books."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytest

from okane.local.stripe_simulator.server import PACKAGES
from tests.conformance.simulators import installed
from tests.conformance.whole_system import compare, run

# What the machine of a developer may have set is not what this test is about.
FOREIGN = ("DATABASE_URL", "REDIS_URL", "REDIS_ADDR", "PROVIDER_BASE_URL", "PROVIDERS_FILE", "PORT", "MODE", "AUTH")


@pytest.mark.timeout(300)
async def test_the_books_of_okane_and_stripe_agree_after_a_worker_was_killed() -> None:
    installed(PACKAGES)
    foreign = {*FOREIGN, *(f"OKANE_{name}" for name in FOREIGN)}
    env = {name: value for name, value in os.environ.items() if name not in foreign}
    books = await run(payments=60, rate=30, env={**env, "VISIBILITY_TIMEOUT": "6s"})
    assert books.are_right, books
    assert books.payments.keys() <= {"success", "failed_final"}, books
    assert books.payments["success"] == books.intents["succeeded"] > 30
    assert books.payments.total() == 60


def payment(id_: str, status: str, amount: int = 5) -> dict[str, Any]:
    return {"id": id_, "status": status, "amount": amount}


def intent(payment_id: str, status: str, received: int = 5) -> dict[str, Any]:
    return {"status": status, "amount_received": received, "metadata": {"payment_id": payment_id}}


@pytest.mark.parametrize(
    ("payments", "intents", "wrong"),
    [
        ([payment("a", "success"), payment("b", "failed_final")], [intent("a", "succeeded")], {}),
        ([payment("a", "success")], [intent("a", "requires_payment_method"), intent("a", "succeeded")], {}),
        ([payment("a", "success")], [], {"lost": 1}),
        ([payment("a", "success")], [intent("a", "succeeded")] * 2, {"doubled": 1}),
        ([payment("a", "success")], [intent("a", "succeeded"), intent("a", "processing")], {"doubled": 1}),
        ([payment("a", "failed_final")], [intent("a", "succeeded")], {"unasked": 1, "wrong_amount": 1}),
        ([payment("a", "success")], [intent("a", "succeeded", 6)], {"wrong_amount": 1}),
    ],
)
def test_the_comparison_of_the_books(
    payments: list[dict[str, Any]], intents: list[dict[str, Any]], wrong: Mapping[str, int]
) -> None:
    books = compare(payments, intents)
    found = {name: getattr(books, name) for name in ("lost", "doubled", "unasked", "wrong_amount")}
    assert {name: count for name, count in found.items() if count} == wrong
    assert books.are_right == (not wrong)
