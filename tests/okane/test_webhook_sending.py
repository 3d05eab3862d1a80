"""The connections of a dispatcher: shared by its queues, and no account takes more than its part."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid4

from prometheus_client import CollectorRegistry

from okane.store.webhook_endpoints import Endpoint
from okane.store.webhook_events import EventRow, LoggedEvent
from okane.webhooks.delivery import Lease, Limits
from okane.webhooks.long_metadata import LongMetadata
from okane.webhooks.metrics import DispatcherMetrics
from okane.webhooks.queue import EndpointQueue
from okane.webhooks.sender import Answer, Sender
from okane.webhooks.sending import Sending
from okane.webhooks.served_queue import ServedQueue, delivery_of

AT = datetime(2026, 11, 1, tzinfo=UTC)
NO_METADATA = LongMetadata(cast(Any, None))  # no event of these tests has any


class SlowSender:
    """A sender whose requests end when they may."""

    def __init__(self, began: Counter[str], may_end: asyncio.Event) -> None:
        self._began = began
        self._may_end = may_end

    async def send(self, endpoint: Endpoint, *_: object, **__: object) -> Answer:
        self._began[endpoint.account_id] += 1
        await self._may_end.wait()
        return Answer("delivered", 200, 1, "")


def events(count: int) -> Sequence[EventRow]:
    logged = [LoggedEvent(number + 1, "a", uuid4(), 2, "payment.succeeded", AT) for number in range(count)]
    return [EventRow(one, "success", 1, None, None, 440, "USD", "key", AT, {}) for one in logged]


def served(account_id: str, sender: SlowSender) -> ServedQueue:
    """A queue with twenty events."""
    endpoint = Endpoint(
        id=UUID(int=uuid4().int),
        account_id=account_id,
        url="https://shop.example/hook",
        types=("payment.*",),
        api_version="2026-12-01",
        created_at=AT,
        starts_after=0,
    )
    queue: EndpointQueue[EventRow] = EndpointQueue(
        Limits(max_in_flight=20), lease=Lease(math.inf), done_to=0, now_s=0.0, roll=lambda: 0.0
    )
    queue.offer(map(delivery_of, events(20)), read_to=20, now_s=0.0)
    return ServedQueue(endpoint=endpoint, epoch=1, queue=queue, sender=cast(Sender, sender))


async def test_one_account_takes_a_quarter_of_the_connections_at_most() -> None:
    began, may_end = Counter[str](), asyncio.Event()
    sending = Sending(
        metrics=DispatcherMetrics(CollectorRegistry()),
        clock=time.monotonic,
        ended=lambda _: None,
        may_begin=lambda: True,
        long_metadata=NO_METADATA,
        most=16,
    )
    loud = [served("loud", SlowSender(began, may_end)) for _ in range(3)]
    for one in loud:
        sending.wake(one)
    quiet = served("quiet", SlowSender(began, may_end))
    sending.wake(quiet)
    while not began["quiet"]:
        await asyncio.sleep(0)
    assert began == {"loud": 4 + 2, "quiet": 4}  # each queue has one at least
    may_end.set()
    await sending.drain()
    assert began == {"loud": 60, "quiet": 20}  # those that got none go on when others have ended
    assert sending.in_flight == 0
