"""The parts of the pipeline with spans around what a payment waits for.

Many payments share a statement or a pipeline: a span is the time that one of them waited for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from opentelemetry.trace import SpanKind

from okane.payment import Payment
from okane.providers.base import ChargeResult, LookUpResult, Provider, Unavailable, Unknown
from okane.store import Accepted, Claimed, NewPayment, PaymentStore, Refused, Settlement
from okane.tracing.spans import Part, Spans, accepted
from streams import Draft, Handler, Message, Outcome, Publisher, StreamFull


class TracedPublisher:
    """A publisher that sends the trace along with each message."""

    def __init__(self, spans: Spans, publisher: Publisher) -> None:
        self._spans = spans
        self._publisher = publisher

    async def publish(self, body: bytes, *, lane: str | None = None, headers: Mapping[str, str] | None = None) -> str:
        with self._spans.publishing(body, lane) as part:
            entry_id = await self._publisher.publish(body, lane=lane, headers=part.carried(headers))
            part.span.set_attribute("messaging.message.id", entry_id)
            return entry_id

    async def publish_many(self, drafts: Sequence[Draft]) -> list[str]:
        parts = [self._spans.publishing(draft.body, draft.lane) for draft in drafts]
        traced = [
            Draft(draft.body, draft.lane, part.carried(draft.headers))
            for draft, part in zip(drafts, parts, strict=True)
        ]
        try:
            ids = await self._publisher.publish_many(traced)
        except StreamFull as error:
            _published(parts, error.published)
            raise
        except BaseException as error:
            for part in parts:
                part.fail(type(error).__name__)
                part.span.end()
            raise
        _published(parts, ids)
        return ids


class TracedStore(PaymentStore):
    """A store with spans for the claim and the settlement; an accepted payment is named in the request's span."""

    def __init__(self, url: str, *, spans: Spans, **options: Any) -> None:
        super().__init__(url, **options)
        self._spans = spans

    async def accept_many(self, news: Sequence[NewPayment], *, wakes: int) -> Sequence[Accepted | BaseException]:
        found = await super().accept_many(news, wakes=wakes)
        accepted(news, found)
        return found

    async def claim(self, payment_id: UUID) -> Claimed | Refused:
        with self._spans.step("claim") as part:
            claim = await super().claim(payment_id)
            part.span.set_attribute("okane.claim", _claim(claim))
            return claim

    async def settle(self, settlement: Settlement) -> timedelta | None:
        with self._spans.step("settle") as part:
            age = await super().settle(settlement)
            part.span.set_attribute("okane.payment.status", settlement.status.value)
            part.span.set_attribute("okane.late", age is None)
            return age


class TracedProvider:
    """A provider with a span for each call."""

    def __init__(self, spans: Spans, provider: Provider) -> None:
        self._spans = spans
        self._provider = provider

    @property
    def name(self) -> str:
        return self._provider.name

    async def charge(self, payment: Payment) -> ChargeResult:
        with self._spans.step("provider charge", SpanKind.CLIENT) as part:
            result = await self._provider.charge(payment)
            self._answered(part, result)
            return result

    async def look_up(self, payment: Payment) -> LookUpResult:
        with self._spans.step("provider look_up", SpanKind.CLIENT) as part:
            result = await self._provider.look_up(payment)
            self._answered(part, result)
            return result

    async def aclose(self) -> None:
        await self._provider.aclose()

    def _answered(self, part: Part, result: LookUpResult) -> None:
        if not part.kept:
            return
        outcome = type(result).__name__.lower()
        part.span.set_attributes({"okane.provider": self._provider.name, "okane.provider.outcome": outcome})
        if isinstance(result, Unavailable | Unknown):
            part.fail(outcome)


def traced_handler(spans: Spans, handler: Handler) -> Handler:
    """A handler that is called by hand, traced as the consumer does it."""

    async def handle(message: Message) -> Outcome:
        with spans.processing([message]):
            return await handler(message)

    return handle


def _published(parts: Sequence[Part], ids: Sequence[str | None]) -> None:
    for part, entry_id in zip(parts, ids, strict=True):
        if entry_id is None:
            part.fail(StreamFull.__name__)
        else:
            part.span.set_attribute("messaging.message.id", entry_id)
        part.span.end()


def _claim(claim: Claimed | Refused) -> str:
    if isinstance(claim, Claimed):
        return "granted"
    return "missing" if claim.status is None else claim.status.value
