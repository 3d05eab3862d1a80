"""Payments that share a batch: the refusal of one delays neither the others nor the next batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from okane.api.payment_creation import PaymentCreation
from okane.api.problems import Problem
from okane.config import Settings
from okane.errors import Overloaded
from okane.intake.accept import IntakeReceipt, PaymentIntake
from okane.intake.load_shedding import LoadShedding
from okane.lanes import payments_stream
from okane.metrics import OkaneMetrics
from okane.payment import Payment
from okane.store import NewPayment, PaymentStore
from streams import Draft
from streams.testing import MemoryQueue
from tests.okane.fast_path import Shelf

LIMIT = 1_000
LARGE = LIMIT + 1


class Slow(MemoryQueue):
    """A queue that accepts nothing until a test opens it."""

    def __init__(self) -> None:
        super().__init__(payments_stream("test"))
        self.open = asyncio.Event()

    async def publish_many(self, drafts: Sequence[Draft]) -> list[str]:
        await self.open.wait()
        return await super().publish_many(drafts)


@dataclass(slots=True)
class Finding(Shelf):
    """A store that finds no payment, and answers once two were looked up."""

    both: asyncio.Barrier = field(default_factory=partial(asyncio.Barrier, 2))

    async def find(self, new: NewPayment) -> Payment | None:
        async with asyncio.timeout(5):
            await self.both.wait()
        return None


@pytest.mark.parametrize(
    ("amounts", "pressed", "kinds"),
    [
        ((1, 2), False, (IntakeReceipt, IntakeReceipt)),
        ((LARGE, 1, LARGE), False, (Problem, IntakeReceipt, Problem)),
        ((LARGE, LARGE), False, (Problem, Problem)),
        ((1, 2), True, (Overloaded, Overloaded)),
    ],
    ids=["all are new", "some are refused", "all are refused", "too many wait"],
)
async def test_the_next_batch_may_leave_before_redis_answers(
    amounts: Sequence[int], pressed: bool, kinds: Sequence[type]
) -> None:
    """Refused payments do not wait for each other either: they are looked up together."""
    shelf, queue = Finding(), Slow()
    shelf.open.set()
    load_shedding = cast("LoadShedding", SimpleNamespace(is_shedding=pressed))
    creation = PaymentCreation(
        settings=Settings(_env_file=None, amount_limits={"USD": LIMIT}),
        intake=PaymentIntake(store=cast("PaymentStore", shelf), producer=queue, load_shedding=load_shedding),
        metrics=OkaneMetrics(CollectorRegistry()),
    )
    news = [creation.parse(b'{"amount":%d}' % amount, [f"k{n}"], account_id="a") for n, amount in enumerate(amounts)]
    async with asyncio.timeout(5):
        written = await creation.write(news)
    queue.open.set()
    assert tuple(map(type, await creation.wake(written))) == kinds
