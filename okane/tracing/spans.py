"""The OpenTelemetry spans of a payment: its request, the publishing of its wake-up, and the steps of a worker.

Promise: a span carries the payment's id and how a step ended; never a key, a secret, an amount, metadata, or the text of an
error. Of the headers that clients send only a valid `traceparent` travels on. Sampling is decided where a trace enters okane;
for one that is not sampled no further span is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Self
from uuid import UUID

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import INVALID_SPAN, Link, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from okane.store import AcceptedRow, NewPayment
from okane.tracing import RequestSpan
from streams import Message

TRACEPARENT = "traceparent"
PAYMENT_ID = "okane.payment.id"
OPERATION_ID = "okane.operation.id"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_PROPAGATOR = TraceContextTextMapPropagator()
_NO_CONTEXT = Context()
_ID = re.compile(r"(?:pay_)?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|evt_[0-9a-f]{32}_[0-9]{1,10}", re.IGNORECASE)
_UNSAMPLED = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f][02468ace]")


class TraceSpan(AbstractContextManager["TraceSpan"]):
    """One span of ours around OpenTelemetry's (`otel`). It is the current one inside its block, and ends with it.

    `traceparent` names it to others; `trace_id` is that of a sampled trace.
    """

    __slots__ = ("_token", "otel", "trace_id", "traceparent")

    def __init__(self, traceparent: str, *, otel: Span = INVALID_SPAN, trace_id: str | None = None) -> None:
        """Without `otel` it belongs to a trace that is not sampled, and only passes `traceparent` on."""
        self.traceparent = traceparent
        self.otel = otel
        self.trace_id = trace_id
        self._token: Token[TraceSpan | None] | None = None

    @classmethod
    def of(cls, otel: Span) -> Self:
        """Return the span around one of OpenTelemetry's, sampled or not."""
        context = otel.get_span_context()
        if not context.is_valid:
            return cls("")
        trace_id = f"{context.trace_id:032x}"
        traceparent = f"00-{trace_id}-{context.span_id:016x}-{context.trace_flags:02x}"
        return cls(traceparent, otel=otel, trace_id=trace_id if context.trace_flags.sampled else None)

    def __enter__(self) -> Self:
        self._token = _CURRENT.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            _CURRENT.reset(self._token)
        if kind is not None:
            self.fail(kind.__name__)
        self.otel.end()

    @property
    def is_recorded(self) -> bool:
        return self.otel.is_recording()

    def with_traceparent(self, headers: Mapping[str, str] | None) -> Mapping[str, str]:
        """Return a message's headers with the `traceparent` of this span."""
        return {**(headers or {}), TRACEPARENT: self.traceparent} if self.traceparent else headers or {}

    def fail(self, kind: str) -> None:
        """Record a failure of this kind. The text of an error may hold anything, and is left out."""
        self.otel.set_status(StatusCode.ERROR)
        self.otel.set_attribute("error.type", kind)

    def name_payment(self, accepted: AcceptedRow) -> None:
        """Record the payment of a request."""
        if self.is_recorded:
            self.otel.set_attribute(PAYMENT_ID, str(accepted.payment.id))
            self.otel.set_attribute("okane.payment.created", accepted.created)

    def abandon(self) -> None:
        """End the span of a request that gets no answer."""
        if self.is_recorded:
            self.fail("given_up")
            self.otel.end()

    def answered(self, status: int) -> None:
        """Record the status code of the answer. A client's error is no failure of ours."""
        self.otel.set_attribute("http.response.status_code", status)
        if status >= 500:
            self.fail(str(status))


class SpanBatch:
    """The spans of requests that share one batch, by the payment that each wants, and later by its id."""

    def __init__(self, requests: Sequence[tuple[TraceSpan, NewPayment]]) -> None:
        self._by_new = {id(new): span for span, new in requests}  # the caller keeps each `new` alive for as long
        self._by_payment: dict[bytes, TraceSpan] = {}

    def name_payment(self, new: NewPayment, accepted: AcceptedRow) -> None:
        """Record the payment of one of the requests."""
        span = self._by_new[id(new)]
        if accepted.created:
            self._by_payment[accepted.payment.id.bytes] = span
        span.name_payment(accepted)

    def of_payment(self, body: bytes) -> TraceSpan | None:
        """Return the span of the request that made this wake-up's payment."""
        return self._by_payment.get(body)


_CURRENT: ContextVar[TraceSpan | None] = ContextVar("okane.trace", default=None)
_BATCH: ContextVar[SpanBatch | None] = ContextVar("okane.traces", default=None)


def name_payments(news: Sequence[NewPayment], rows: Sequence[AcceptedRow | BaseException]) -> None:
    """Record in the spans of the requests around the caller which payments they have."""
    current, batch = _CURRENT.get(), _BATCH.get()
    for new, row in zip(news, rows, strict=True):
        if not isinstance(row, AcceptedRow):
            continue
        if batch is not None:
            batch.name_payment(new, row)
        elif current is not None and len(news) == 1:  # a request for many payments is named after none of them
            current.name_payment(row)


def current_trace_id() -> str | None:
    """Return the id of the trace around the caller, if it is sampled."""
    current = _CURRENT.get()
    return None if current is None else current.trace_id


def traceparent_header() -> str:
    """Return the header line that names the current span to a server, with its line end; empty without one."""
    current = _CURRENT.get()
    return f"{TRACEPARENT}: {current.traceparent}\r\n" if current is not None and current.traceparent else ""


class SpanFactory:
    """Begins the spans of one process. The spans of messages carry the names of `stream` and `group`, and as `subject` the
    id in their body."""

    def __init__(self, provider: TracerProvider, *, stream: str, group: str, subject: str = PAYMENT_ID) -> None:
        self._subject = subject
        self._start = provider.get_tracer("okane").start_span
        self._publish, self._process = f"publish {stream}", f"process {stream}"
        destination = {"messaging.system": "redis", "messaging.destination.name": stream}
        self._publishing = destination | {"messaging.operation.name": "publish", "messaging.operation.type": "send"}
        self._processing = destination | {
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.consumer.group.name": group,
        }

    def request(self, method: str, route: str | None, path: str, traceparents: Sequence[str]) -> TraceSpan:
        """Begin the server's span of a request. A path without a route, or with other parts in it than ids, may hold
        anything, and is left out."""
        method = method if method in _METHODS else "_OTHER"
        attributes = {"http.request.method": method, "url.scheme": "http"}
        if route is not None:
            attributes["http.route"] = route
            if _has_ids_only(route, path):
                attributes["url.path"] = path
        name = f"{method} {route}" if route is not None else method.replace("_OTHER", "HTTP")
        return TraceSpan.of(self._start(name, _context_of(traceparents), SpanKind.SERVER, attributes))

    @contextmanager
    def batch(self, requests: Sequence[tuple[RequestSpan, NewPayment]]) -> Iterator[None]:
        """Inside the block, relate what is done about these payments to the spans that `request` has begun."""
        token = _BATCH.set(SpanBatch([(span, new) for span, new in requests if isinstance(span, TraceSpan)]))
        try:
            yield
        finally:
            _BATCH.reset(token)

    def processing(self, messages: Sequence[Message]) -> TraceSpan:
        """Begin the consumer's span of a message, in the trace that published it. One span for several is linked to all."""
        if len(messages) != 1:
            return TraceSpan.of(
                self._start(self._process, _NO_CONTEXT, SpanKind.CONSUMER, self._processing, _links(messages))
            )
        [message] = messages
        traceparent = message.headers.get(TRACEPARENT, "")
        if _UNSAMPLED.fullmatch(traceparent):
            return TraceSpan(traceparent)
        span = TraceSpan.of(self._start(self._process, _context_of([traceparent]), SpanKind.CONSUMER, self._processing))
        if span.is_recorded:
            attributes: dict[str, str | int] = {
                "messaging.message.id": message.id,
                "okane.lane": message.lane,
                "okane.attempt": message.attempt,
                "okane.deliveries": message.deliveries,
            }
            span.otel.set_attributes(attributes | _id_attributes(self._subject, message.body))
        return span

    def publishing(self, body: bytes, lane: str | None) -> TraceSpan:
        """Begin the producer's span of a wake-up, in the trace around the caller or in a new one."""
        batch = _BATCH.get()
        span = _CURRENT.get() if batch is None else batch.of_payment(body)
        if span is not None and not span.is_recorded:
            return TraceSpan(span.traceparent)
        attributes = (
            self._publishing | _id_attributes(self._subject, body) | ({} if lane is None else {"okane.lane": lane})
        )
        return TraceSpan.of(self._start(self._publish, _context_in(span), SpanKind.PRODUCER, attributes))

    def step(self, name: str, kind: SpanKind = SpanKind.INTERNAL) -> AbstractContextManager[TraceSpan]:
        """Begin the span of one step within the current span."""
        span = _CURRENT.get()
        if span is not None and not span.is_recorded:
            return nullcontext(span)
        return TraceSpan.of(self._start(name, _context_in(span), kind))


def _has_ids_only(route: str, path: str) -> bool:
    """Return True if the parts of a path that its route leaves open are ids of payments, events and other rows."""
    parts = zip(route.split("/"), path.split("/"), strict=False)
    return all(fixed == part or _ID.fullmatch(part) for fixed, part in parts)


def _context_of(traceparents: Sequence[str]) -> Context:
    """Return the context that a single valid `traceparent` names; with anything else a new trace begins.

    `tracestate` is ignored: text from outside goes neither into stream entries nor to the provider.
    """
    if len(traceparents) != 1:
        return _NO_CONTEXT
    return _PROPAGATOR.extract({TRACEPARENT: traceparents[0]}, _NO_CONTEXT)


def _context_in(span: TraceSpan | None) -> Context:
    return _NO_CONTEXT if span is None else trace.set_span_in_context(span.otel, _NO_CONTEXT)


def _links(messages: Sequence[Message]) -> Sequence[Link]:
    traceparents = [message.headers[TRACEPARENT] for message in messages if TRACEPARENT in message.headers]
    found = [trace.get_current_span(_context_of([one])).get_span_context() for one in traceparents]
    return [Link(context) for context in found if context.is_valid]


def _id_attributes(subject: str, body: bytes) -> dict[str, str | int]:
    return {subject: str(UUID(bytes=body))} if len(body) == 16 else {}
