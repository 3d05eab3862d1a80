"""The parts of the system that an operator's commands change payments with: `okane dead`, `okane review`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from okane.commands.context import Context
from okane.intake.accept import Accept
from okane.intake.replay import Replay
from okane.lanes import payments_stream
from okane.store import OPERATOR, DeadLetterStore, Overview, PaymentStore, ReviewStore
from streams import DeadLetters, Producer, connect


@dataclass(frozen=True, slots=True)
class Parts:
    """Stores and streams, open. They connect when they are used."""

    store: PaymentStore
    overview: Overview
    dead: DeadLetterStore
    review: ReviewStore
    accept: Accept
    replay: Replay


@contextlib.asynccontextmanager
async def opened(where: Context) -> AsyncIterator[Parts]:
    """Open the parts, as the operator, for the length of the block."""
    settings, url = where.settings, where.database_url
    stream = payments_stream(settings.stream)
    async with contextlib.AsyncExitStack() as closing:
        redis = await closing.enter_async_context(connect(where.redis_url))
        store = PaymentStore(
            url,
            actor=OPERATOR,
            lease=settings.lease,
            grace=settings.sweep_grace,
            late_look_ups=settings.late_look_ups,
        )
        overview, dead, review, producer = (
            Overview(url),
            DeadLetterStore(url),
            ReviewStore(url),
            Producer(redis, stream),
        )
        for each in (store, overview, dead, review, producer):
            closing.push_async_callback(each.aclose)
        accept = Accept(store=store, producer=producer)
        yield Parts(store, overview, dead, review, accept, Replay(accept=accept, notes=DeadLetters(redis, stream)))
