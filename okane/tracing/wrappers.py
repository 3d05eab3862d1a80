"""Wrappers that put spans around the steps of a payment: publishing, claim, provider call, settlement.

Many payments share a statement or a pipeline: a span is the time that one of them waited for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from opentelemetry.trace import SpanKind

from okane.operation import Operation
from okane.payment import Payment
from okane.providers.base import (
    ChargeResult,
    Declined,
    LookUpResult,
    OperationLookUp,
    OperationResult,
    Provider,
    Traits,
    Unavailable,
    Unknown,
)
from okane.store import AcceptedRow, Claim, ClaimRefusal, NewPayment, Settlement
from okane.tracing import ClaimStore, RowWriter
from okane.tracing.spans import SpanFactory, TraceSpan, name_payments
from streams import Draft, Handler, Message, Outcome, Publisher, StreamFull


class TracedPublisher:
    """A publisher that sends the trace along with each message."""

    def __init__(self, spans: SpanFactory, publisher: Publisher) -> None:
        self._spans = spans
        self._publisher = publisher

    async def publish(self, body: bytes, *, lane: str | None = None, headers: Mapping[str, str] | None = None) -> str:
        with self._spans.publishing(body, lane) as span:
            entry_id = await self._publisher.publish(body, lane=lane, headers=span.with_traceparent(headers))
            span.otel.set_attribute("messaging.message.id", entry_id)
            return entry_id

    async def publish_many(self, drafts: Sequence[Draft]) -> list[str]:
        spans = [self._spans.publishing(draft.body, draft.lane) for draft in drafts]
        traced = [
            Draft(draft.body, draft.lane, span.with_traceparent(draft.headers))
            for draft, span in zip(drafts, spans, strict=True)
        ]
        try:
            ids = await self._publisher.publish_many(traced)
        except StreamFull as error:
            _end_published(spans, error.published)
            raise
        except BaseException as error:
            for span in spans:
                span.fail(type(error).__name__)
                span.otel.end()
            raise
        _end_published(spans, ids)
        return ids


class TracedRowWriter:
    """A row writer that names each payment in the span of its request."""

    def __init__(self, writer: RowWriter) -> None:
        self._writer = writer

    async def accept_many(self, news: Sequence[NewPayment], *, wakes: int) -> Sequence[AcceptedRow | BaseException]:
        rows = await self._writer.accept_many(news, wakes=wakes)
        name_payments(news, rows)
        return rows


class TracedClaimStore:
    """A claim store with spans for the claim and the settlement."""

    def __init__(self, spans: SpanFactory, store: ClaimStore) -> None:
        self._spans = spans
        self._store = store

    async def claim(self, payment_id: UUID) -> Claim | ClaimRefusal:
        with self._spans.step("claim") as span:
            claim = await self._store.claim(payment_id)
            span.otel.set_attribute("okane.claim", _claim_result(claim))
            return claim

    async def settle(self, settlement: Settlement) -> timedelta | None:
        with self._spans.step("settle") as span:
            age = await self._store.settle(settlement)
            span.otel.set_attribute("okane.payment.status", settlement.status.value)
            span.otel.set_attribute("okane.late", age is None)
            return age


class TracedProvider:
    """A provider with a span for each call."""

    def __init__(self, spans: SpanFactory, provider: Provider) -> None:
        self._spans = spans
        self._provider = provider

    @property
    def name(self) -> str:
        return self._provider.name

    @property
    def traits(self) -> Traits:
        return self._provider.traits

    async def charge(self, payment: Payment) -> ChargeResult:
        with self._spans.step("provider charge", SpanKind.CLIENT) as span:
            result = await self._provider.charge(payment)
            self._record(span, result)
            return result

    async def look_up(self, payment: Payment, *, may_execute: bool) -> LookUpResult:
        with self._spans.step("provider look_up", SpanKind.CLIENT) as span:
            result = await self._provider.look_up(payment, may_execute=may_execute)
            self._record(span, result)
            return result

    async def release(self, payment: Payment, declined: Declined) -> LookUpResult:
        with self._spans.step("provider release", SpanKind.CLIENT) as span:
            result = await self._provider.release(payment, declined)
            self._record(span, result)
            return result

    async def operate(self, operation: Operation, payment: Payment) -> OperationResult:
        with self._spans.step(f"provider {operation.kind}", SpanKind.CLIENT) as span:
            result = await self._provider.operate(operation, payment)
            self._record(span, result)
            return result

    async def look_up_operation(self, operation: Operation, payment: Payment, *, may_execute: bool) -> OperationLookUp:
        with self._spans.step("provider look_up", SpanKind.CLIENT) as span:
            result = await self._provider.look_up_operation(operation, payment, may_execute=may_execute)
            self._record(span, result)
            return result

    async def aclose(self) -> None:
        await self._provider.aclose()

    def _record(self, span: TraceSpan, result: LookUpResult) -> None:
        if not span.is_recorded:
            return
        outcome = type(result).__name__.lower()
        span.otel.set_attributes({"okane.provider": self._provider.name, "okane.provider.outcome": outcome})
        if isinstance(result, Unavailable | Unknown):
            span.fail(outcome)


def traced_handler(spans: SpanFactory, handler: Handler) -> Handler:
    """Return a handler for messages from no stream, traced as the consumer traces those of a stream."""

    async def handle(message: Message) -> Outcome:
        with spans.processing([message]):
            return await handler(message)

    return handle


def _end_published(spans: Sequence[TraceSpan], ids: Sequence[str | None]) -> None:
    for span, entry_id in zip(spans, ids, strict=True):
        if entry_id is None:
            span.fail(StreamFull.__name__)
        else:
            span.otel.set_attribute("messaging.message.id", entry_id)
        span.otel.end()


def _claim_result(claim: Claim | ClaimRefusal) -> str:
    if isinstance(claim, Claim):
        return "granted"
    return "missing" if claim.status is None else claim.status.value
