"""The limits of a server's connections, and the count of those that are open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from okane import open_files
from okane.api import request_ids
from okane.api.http import protocol_errors
from okane.api.problems import Problem, last_answer
from okane.config import Settings

log = structlog.get_logger("okane.api")

# The headers and the text of the answer to what no route has answered, for servers that do not answer in problem+json.
RefusalText = Callable[[Problem], tuple[Mapping[str, str], bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """The limits for the clients of one server."""

    connections: int
    head_timeout_s: float  # from the connection, or the first byte of a further request, to the end of its head
    keep_alive_timeout_s: float  # between two requests
    write_timeout_s: float  # for the answers that are waiting to be read

    @classmethod
    def of(cls, settings: Settings) -> ConnectionLimits:
        """Return the limits that are set, as far as this process may open files."""
        return cls(
            connections=open_files.room_for(settings.max_connections),
            head_timeout_s=settings.head_timeout.total_seconds(),
            keep_alive_timeout_s=settings.keep_alive_timeout.total_seconds(),
            write_timeout_s=settings.write_timeout.total_seconds(),
        )


class ConnectionMetrics:
    """The metrics of connections, and of bytes that are not a request."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.refused = Counter(
            "okane_http_requests_refused",
            "What came to the API and was no request, or not one in time, by reason (the code of the answer).",
            ["reason"],
            registry=registry,
        )
        for reason in protocol_errors.REASONS:  # a counter that begins at 1 has no rate
            self.refused.labels(reason)
        self.open = Gauge("okane_http_connections", "Connections of clients to the API.", registry=registry)


class ConnectionGate:
    """Admits connections up to the limit and counts them. `leaving` is set while every answer ends its connection."""

    def __init__(
        self,
        limits: ConnectionLimits,
        metrics: ConnectionMetrics | None = None,
        leaving: asyncio.Event | None = None,
        refusal_text: RefusalText | None = None,
    ) -> None:
        self.limits = limits
        self.leaving = leaving or asyncio.Event()
        self._metrics = metrics
        self.refusal_text = refusal_text
        self._open = 0

    def admit(self) -> bool:
        """Count a new connection; return False if there is no room for it."""
        if self._open >= self.limits.connections:
            return False
        self._open += 1
        self._show()
        return True

    def release(self) -> None:
        """Count an admitted connection as gone."""
        self._open -= 1
        self._show()

    def count_refusal(self, refusal: Problem) -> None:
        """Count an answer that no route has given."""
        log.debug("request_refused", reason=refusal.code)
        if self._metrics is not None:
            self._metrics.refused.labels(refusal.code).inc()

    def refusal_bytes(self, refusal: Problem) -> bytes:
        """Return the answer to bytes that are not a request."""
        if self.refusal_text is None:
            return refusal.on_the_wire(request_id=request_ids.new_id())
        headers, body = self.refusal_text(refusal)
        return last_answer(refusal.status, {**headers, "Content-Length": str(len(body)), "Connection": "close"}, body)

    def _show(self) -> None:
        if self._metrics is not None:
            self._metrics.open.set(self._open)
