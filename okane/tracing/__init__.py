"""Tracing (docs/tracing.md): the wrappers around what a process has built, and the tracers that its parts call.

Decided once, when a process is composed. While tracing is off nothing is wrapped and no tracer is called: it costs nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Protocol, Self, TypeVar
from uuid import UUID

from okane.config import Settings
from okane.errors import SetupError
from okane.providers.base import Provider
from okane.store import AcceptedRow, Claim, ClaimRefusal, NewPayment, Settlement
from streams import Handler, Publisher, Tracer

T = TypeVar("T")


class RequestSpan(Protocol):
    """The span of one request. It is the caller's current span inside its block, and ends with it."""

    @property
    def traceparent(self) -> str:
        """The header value that names this span to the client; empty if there is none."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def answered(self, status: int) -> None:
        """Record the status code of the answer."""

    def abandon(self) -> None:
        """End the span of a request that gets no answer."""


class RequestTracer(Protocol):
    """The tracer of the API's requests."""

    def request(self, method: str, route: str | None, path: str, traceparents: Sequence[str]) -> RequestSpan:
        """Begin the span of a request for `route` that carries these `traceparent` headers."""

    def batch(self, requests: Sequence[tuple[RequestSpan, NewPayment]]) -> AbstractContextManager[object]:
        """Inside the block, relate what is done about these payments to the spans of their requests."""


class RowWriter(Protocol):
    """The part of a payment store that writes new payments."""

    async def accept_many(self, news: Sequence[NewPayment], *, wakes: int) -> Sequence[AcceptedRow | BaseException]: ...


class ClaimStore(Protocol):
    """The part of a payment store that every payment passes in a worker."""

    async def claim(self, payment_id: UUID) -> Claim | ClaimRefusal: ...

    async def settle(self, settlement: Settlement) -> timedelta | None: ...


def _unchanged(one: T) -> T:
    return one


async def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracing:
    """The tracing of one process. Without arguments it traces nothing, and each wrapper returns what it is given."""

    requests: RequestTracer | None = None
    messages: Tracer | None = None
    trace_id: Callable[[], str | None] | None = None  # of the recorded trace around the caller, for exemplars
    provider_header: Callable[[], str] | None = None  # with its line end
    row_writer: Callable[[RowWriter], RowWriter] = _unchanged
    claim_store: Callable[[ClaimStore], ClaimStore] = _unchanged
    publisher: Callable[[Publisher], Publisher] = _unchanged
    provider: Callable[[Provider], Provider] = _unchanged
    handler: Callable[[Handler], Handler] = _unchanged  # for messages that come from no stream
    aclose: Callable[[], Awaitable[None]] = _nothing
    of_operations: Tracing | None = None

    @property
    def for_operations(self) -> Tracing:
        """The tracing of the stream of captures, voids and refunds."""
        return self.of_operations or OFF


OFF = Tracing()


def start(settings: Settings, *, role: str, name: str) -> Tracing:
    """Return tracing as it is set for the process `name` of this `role`. Raises SetupError without the extra."""
    if not settings.tracing:
        return OFF
    try:
        from okane.tracing.opentelemetry_tracing import exporting  # noqa: PLC0415 - opentelemetry is an extra
    except ModuleNotFoundError as error:
        raise SetupError(f"OKANE_TRACING needs the extra okane[otel]: {error}. `pip install 'okane[otel]'`") from error
    try:
        return exporting(settings, role=role, name=name)
    except (ValueError, OSError) as error:
        raise SetupError("OKANE_TRACING: an OTEL_* variable has a value that OpenTelemetry does not take") from error
