"""Help for tests of endpoint queues: deliveries, answers and a queue with an explicit clock."""

from __future__ import annotations

import math
from dataclasses import dataclass
from uuid import UUID

from okane.webhooks.breaker import BreakerRules
from okane.webhooks.delivery import Delivery, Lease, Limits
from okane.webhooks.memory import QueueMemory
from okane.webhooks.queue import EndpointQueue

Queue = EndpointQueue[str]


@dataclass(frozen=True)
class Ended:
    """The end of a request."""

    outcome: str = "delivered"
    status: int | None = 200
    ms: int = 3
    retry_after: float | None = None
    reason: str = ""
    text: str = ""


OK = Ended()
FAILED = Ended("status_5xx", 500, text="boom")
TIMED_OUT = Ended("timeout", None, reason="no answer within 15 s")
GONE = Ended("status_410", 410)


def payment(number: int) -> UUID:
    return UUID(int=number)


def event(position: int, of_payment: int | None = None, *, attempts: int = 0, size: int = 0) -> Delivery[str]:
    """An event; without `of_payment` it is the only one of its payment."""
    number = 1000 + position if of_payment is None else of_payment
    return Delivery(position, payment(number), f"event {position}", attempts=attempts, size=size)


def queue(
    *,
    done_to: int = 0,
    limits: Limits | None = None,
    written: tuple[int, ...] = (),
    rules: BreakerRules | None = None,
    memory: QueueMemory | None = None,
) -> Queue:
    return Queue(
        limits or Limits(),
        lease=Lease(math.inf),
        done_to=done_to,
        now_s=0.0,
        roll=lambda: 0.0,
        written=written,
        rules=rules,
        memory=memory,
    )


def offer(one: Queue, *events: Delivery[str], now_s: float = 0.0) -> None:
    one.offer(events, read_to=max(event.position for event in events), now_s=now_s)


def begin_all(one: Queue, now_s: float = 0.0) -> list[Delivery[str]]:
    """Begin until nothing more may."""
    begun = []
    while (delivery := one.begin(now_s)) is not None:
        begun.append(delivery)
    return begun


def positions(deliveries: list[Delivery[str]]) -> list[int]:
    return [one.position for one in deliveries]


def written(one: Queue) -> dict[int, str]:
    """Collect and confirm a batch; return the states by position."""
    batch = one.collect()
    one.confirm()
    return {result.position: result.state for result in batch.results}
