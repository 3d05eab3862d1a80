"""The stores and streams that `okane dead` and `okane review` change payments and operations with."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

from okane.cli.context import Context
from okane.errors import SetupError
from okane.intake.accept import PaymentIntake
from okane.intake.dead_letter_replay import DeadLetterReplay, DeadOperationReplay
from okane.intake.operations import OperationIntake
from okane.lanes import operations_stream, payments_stream
from okane.payment_id import parse_id
from okane.store import OPERATOR, DeadLetterStore, Overview, PaymentStore, ReviewStore
from okane.store.dead_operations import DeadOperationStore
from okane.store.operations import OperationLists, OperationStore
from streams import DeadLetters, Producer, connect


@dataclass(frozen=True, slots=True)
class Stores:
    """Open stores and streams. Each connects when it is first used."""

    payments: PaymentStore
    overview: Overview
    dead_letters: DeadLetterStore
    reviews: ReviewStore
    intake: PaymentIntake
    replay: DeadLetterReplay
    operations: OperationStore
    dead_operations: DeadOperationStore
    operation_intake: OperationIntake
    operation_replay: DeadOperationReplay


@contextlib.asynccontextmanager
async def open_stores(context: Context) -> AsyncIterator[Stores]:
    """Open the stores, with the operator as the actor, for the length of the block."""
    settings, url = context.settings, context.database_url
    stream = payments_stream(settings.stream)
    async with contextlib.AsyncExitStack() as closing:
        redis = await closing.enter_async_context(connect(context.redis_url))
        payments = PaymentStore(
            url,
            actor=OPERATOR,
            lease=settings.lease,
            grace=settings.sweep_grace,
            late_look_ups=settings.late_look_ups,
        )
        overview, dead_letters, reviews = Overview(url), DeadLetterStore(url), ReviewStore(url)
        producer = Producer(redis, stream)
        operations = OperationStore(
            url,
            actor=OPERATOR,
            lease=settings.lease,
            grace=settings.sweep_grace,
            late_look_ups=settings.late_look_ups,
        )
        operation_lists, dead_operations = OperationLists(url), DeadOperationStore(url)
        operations_queue = operations_stream(settings.operations_stream_name)
        operations_producer = Producer(redis, operations_queue)
        opened = (
            *(payments, overview, dead_letters, reviews, producer),
            *(operations, operation_lists, dead_operations, operations_producer),
        )
        for each in opened:
            closing.push_async_callback(each.aclose)
        intake = PaymentIntake(store=payments, producer=producer)
        replay = DeadLetterReplay(intake=intake, notes=DeadLetters(redis, stream))
        operation_intake = OperationIntake(
            store=operations, lists=operation_lists, payments=intake, producer=operations_producer
        )
        yield Stores(
            payments,
            overview,
            dead_letters,
            reviews,
            intake,
            replay,
            operations,
            dead_operations,
            operation_intake,
            DeadOperationReplay(
                intake=operation_intake, letters=dead_operations, notes=DeadLetters(redis, operations_queue)
            ),
        )


def payment_id(text: str, *, listed_by: str) -> UUID:
    """Parse the id of a payment, which the command `listed_by` prints. Raises SetupError."""
    found = parse_id(text)
    if found is None:
        raise SetupError(f"{text!r} is not a payment's id: see `{listed_by}`")
    return found
