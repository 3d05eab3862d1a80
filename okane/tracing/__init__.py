"""Where tracing takes hold of the system: what is wrapped, and asked, when it is on (docs/tracing.md).

Decided once, at composition. While it is off nothing is wrapped and nobody asks, so that it costs nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TypeVar

from okane.config import Settings
from okane.errors import SetupError
from okane.providers.base import Provider
from okane.store import NewPayment, PaymentStore
from streams import Handler, Publisher, Tracer

T = TypeVar("T")


class RequestSpan(Protocol):
    """The span of one request. In its block it is the one that the caller is in; it ends with it."""

    @property
    def traceparent(self) -> str:
        """What the client is told of it."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def answered(self, status: int) -> None:
        """How it ended."""

    def given_up(self) -> None:
        """It ended without an answer."""


class RequestTracer(Protocol):
    """What traces the requests of the API."""

    def request(self, method: str, route: str | None, path: str, traceparents: Sequence[str]) -> RequestSpan:
        """A request for `route`, that came with these `traceparent` headers, begins."""

    def together(self, asked: Sequence[tuple[RequestSpan, NewPayment]]) -> AbstractContextManager[object]:
        """In the block these requests are seen to."""


def _unchanged(one: T) -> T:
    return one


async def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracing:
    """What a process does to trace. Made without arguments: nothing."""

    requests: RequestTracer | None = None
    messages: Tracer | None = None
    trace_id: Callable[[], str | None] | None = None  # of the trace that is recorded around the caller, for exemplars
    provider_header: Callable[[], str] | None = None  # with its line end
    store: Callable[..., PaymentStore] = PaymentStore
    publisher: Callable[[Publisher], Publisher] = _unchanged
    provider: Callable[[Provider], Provider] = _unchanged
    handler: Callable[[Handler], Handler] = _unchanged  # of what comes from no stream
    aclose: Callable[[], Awaitable[None]] = _nothing


OFF = Tracing()


def start(settings: Settings, *, role: str, name: str) -> Tracing:
    """Tracing as it is set. `role` and `name` say which process this is. Raises SetupError without the extra."""
    if not settings.tracing:
        return OFF
    try:
        from okane.tracing.composed import tracing  # noqa: PLC0415 - opentelemetry is an extra
    except ModuleNotFoundError as error:
        raise SetupError(f"OKANE_TRACING needs the extra okane[otel]: {error}. `pip install 'okane[otel]'`") from error
    try:
        return tracing(settings, role=role, name=name)
    except (ValueError, OSError) as error:
        raise SetupError("OKANE_TRACING: an OTEL_* variable has a value that OpenTelemetry does not take") from error
