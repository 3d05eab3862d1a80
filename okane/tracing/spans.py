"""The spans of a payment, by OpenTelemetry: its request, the publishing of its wake-up, and what a worker does about it.

Promise: a span carries the payment's id, and how things ended; never a key, a secret, an amount, metadata, or the text of
an error. Of what clients send nothing travels on but a valid `traceparent`. Whether a trace is kept is decided where it
enters okane; for one that is not, nothing is made after that.
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

from okane.store import Accepted, NewPayment
from okane.tracing import RequestSpan
from streams import Message

TRACEPARENT = "traceparent"
PAYMENT_ID = "okane.payment.id"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_PROPAGATOR = TraceContextTextMapPropagator()
_NOWHERE = Context()
_NOT_KEPT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f][02468ace]")

Attributes = Mapping[str, str | int | bool]


class Part(AbstractContextManager["Part"]):
    """One part of a trace. In its block it is the one that the caller is in; it ends with it.

    `traceparent` is what others are told of it, `trace_id` that of a trace that is kept.
    """

    __slots__ = ("_token", "span", "trace_id", "traceparent")

    def __init__(self, traceparent: str, *, span: Span = INVALID_SPAN, trace_id: str | None = None) -> None:
        """Without a span it is of a trace that nobody keeps, and only goes along."""
        self.traceparent = traceparent
        self.span = span
        self.trace_id = trace_id
        self._token: Token[Part | None] | None = None

    @classmethod
    def of(cls, span: Span) -> Self:
        """The one that this span records, or that a sampler does not want."""
        context = span.get_span_context()
        if not context.is_valid:
            return cls("")
        trace_id = f"{context.trace_id:032x}"
        told = f"00-{trace_id}-{context.span_id:016x}-{context.trace_flags:02x}"
        return cls(told, span=span, trace_id=trace_id if context.trace_flags.sampled else None)

    def __enter__(self) -> Self:
        self._token = _IN.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            _IN.reset(self._token)
        if kind is not None:
            self.fail(kind.__name__)
        self.span.end()

    @property
    def kept(self) -> bool:
        return self.span.is_recording()

    def carried(self, headers: Mapping[str, str] | None) -> Mapping[str, str]:
        """The headers of a message that belongs to it."""
        return {**(headers or {}), TRACEPARENT: self.traceparent} if self.traceparent else headers or {}

    def fail(self, kind: str) -> None:
        """It went wrong, in which way. An error's text may say anything, and is not kept."""
        self.span.set_status(StatusCode.ERROR)
        self.span.set_attribute("error.type", kind)

    def made(self, accepted: Accepted) -> None:
        """This is the payment that a request was for."""
        if self.kept:
            self.span.set_attribute(PAYMENT_ID, str(accepted.payment.id))
            self.span.set_attribute("okane.payment.created", accepted.created)

    def given_up(self) -> None:
        """It ends without having come to its end."""
        if self.kept:
            self.fail("given_up")
            self.span.end()

    def answered(self, status: int) -> None:
        """How a request ended. What the client did wrong is no error of ours."""
        self.span.set_attribute("http.response.status_code", status)
        if status >= 500:
            self.fail(str(status))


class Together:
    """Requests that are seen to together: the part that each is in, by what it asks for, and then by its payment."""

    def __init__(self, asked: Sequence[tuple[Part, NewPayment]]) -> None:
        self._of_new = {id(new): part for part, new in asked}  # the caller keeps them for as long
        self._of_payment: dict[bytes, Part] = {}

    def accepted(self, new: NewPayment, one: Accepted) -> None:
        """This is its payment."""
        part = self._of_new[id(new)]
        if one.created:
            self._of_payment[one.payment.id.bytes] = part
        part.made(one)

    def of(self, body: bytes) -> Part | None:
        """The one of a message's payment."""
        return self._of_payment.get(body)


_IN: ContextVar[Part | None] = ContextVar("okane.trace", default=None)
_TOGETHER: ContextVar[Together | None] = ContextVar("okane.traces", default=None)


def accepted(news: Sequence[NewPayment], found: Sequence[Accepted | BaseException]) -> None:
    """What became of the requests that the caller sees to, all of them or some."""
    part, together = _IN.get(), _TOGETHER.get()
    for new, one in zip(news, found, strict=True):
        if not isinstance(one, Accepted):
            continue
        if together is not None:
            together.accepted(new, one)
        elif part is not None and len(news) == 1:  # a request for many payments is named after none of them
            part.made(one)


def trace_id() -> str | None:
    """Of the trace around the caller, if it is kept."""
    part = _IN.get()
    return None if part is None else part.trace_id


def header() -> str:
    """What a server is told of the part that the caller is in, as a line of a request's head."""
    part = _IN.get()
    return f"{TRACEPARENT}: {part.traceparent}\r\n" if part is not None and part.traceparent else ""


class Spans:
    """Begins the spans of one process. `stream` and `group` are what the messages' spans name."""

    def __init__(self, provider: TracerProvider, *, stream: str, group: str) -> None:
        self._start = provider.get_tracer("okane").start_span
        self._publish, self._process = f"publish {stream}", f"process {stream}"
        destination = {"messaging.system": "redis", "messaging.destination.name": stream}
        self._publishing = destination | {"messaging.operation.name": "publish", "messaging.operation.type": "send"}
        self._processing = destination | {
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.consumer.group.name": group,
        }

    def request(self, method: str, route: str | None, path: str, traceparents: Sequence[str]) -> Part:
        """The server's span of a request. A path that is no route's may hold anything, and is left out."""
        method = method if method in _METHODS else "_OTHER"
        attributes = {"http.request.method": method, "url.scheme": "http"}
        if route is not None:
            attributes |= {"http.route": route, "url.path": path}
        name = f"{method} {route}" if route is not None else method.replace("_OTHER", "HTTP")
        return Part.of(self._start(name, _named(traceparents), SpanKind.SERVER, attributes))

    @contextmanager
    def together(self, asked: Sequence[tuple[RequestSpan, NewPayment]]) -> Iterator[None]:
        """In the block these requests are seen to. Their spans are parts that `request` has begun."""
        token = _TOGETHER.set(Together([(part, new) for part, new in asked if isinstance(part, Part)]))
        try:
            yield
        finally:
            _TOGETHER.reset(token)

    def processing(self, messages: Sequence[Message]) -> Part:
        """The consumer's span of a message, in the trace that published it. One for several is linked to all of them."""
        if len(messages) != 1:
            return Part.of(self._start(self._process, _NOWHERE, SpanKind.CONSUMER, self._processing, _links(messages)))
        [message] = messages
        told = message.headers.get(TRACEPARENT, "")
        if _NOT_KEPT.fullmatch(told):
            return Part(told)
        part = Part.of(self._start(self._process, _named([told]), SpanKind.CONSUMER, self._processing))
        if part.kept:
            about: dict[str, str | int] = {
                "messaging.message.id": message.id,
                "okane.lane": message.lane,
                "okane.attempt": message.attempt,
                "okane.deliveries": message.deliveries,
            }
            part.span.set_attributes(about | _payment(message.body))
        return part

    def publishing(self, body: bytes, lane: str | None) -> Part:
        """The producer's span of a wake-up: of the trace around the caller, or the first of a new one."""
        together = _TOGETHER.get()
        part = _IN.get() if together is None else together.of(body)
        if part is not None and not part.kept:
            return Part(part.traceparent)
        about = self._publishing | _payment(body) | ({} if lane is None else {"okane.lane": lane})
        return Part.of(self._start(self._publish, _inside(part), SpanKind.PRODUCER, about))

    def step(self, name: str, kind: SpanKind = SpanKind.INTERNAL) -> AbstractContextManager[Part]:
        """One step in what the caller is in."""
        part = _IN.get()
        if part is not None and not part.kept:
            return nullcontext(part)
        return Part.of(self._start(name, _inside(part), kind))


def _named(traceparents: Sequence[str]) -> Context:
    """What a single valid `traceparent` names; anything else is ignored, and a new trace begins.

    Without a `tracestate`: a text of others' making is nothing for our entries, nor for the provider.
    """
    if len(traceparents) != 1:
        return _NOWHERE
    return _PROPAGATOR.extract({TRACEPARENT: traceparents[0]}, _NOWHERE)


def _inside(part: Part | None) -> Context:
    return _NOWHERE if part is None else trace.set_span_in_context(part.span, _NOWHERE)


def _links(messages: Sequence[Message]) -> Sequence[Link]:
    told = [message.headers[TRACEPARENT] for message in messages if TRACEPARENT in message.headers]
    found = [trace.get_current_span(_named([one])).get_span_context() for one in told]
    return [Link(context) for context in found if context.is_valid]


def _payment(body: bytes) -> dict[str, str | int]:
    return {PAYMENT_ID: str(UUID(bytes=body))} if len(body) == 16 else {}
