"""The export of finished spans to a collector, over OTLP/HTTP, configured by the standard OTEL_* variables.

Promise: no payment waits for a collector, and a process that ends waits for three seconds at most. A collector that is away
costs spans, and one line in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
from collections.abc import Sequence

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

log = structlog.get_logger("okane.tracing")

CLOSE_TIMEOUT_S = 3.0  # for what is left to be sent when a process ends


def provider(*, role: str, name: str) -> TracerProvider:
    """Return a provider that exports its spans. OTEL_TRACES_SAMPLER names the sampler."""
    ours = Resource.create({"service.name": f"okane-{role}", "service.instance.id": name})
    resource = ours.merge(OTELResourceDetector().detect())  # the environment wins
    made = TracerProvider(resource=resource, shutdown_on_exit=False)
    logging.getLogger("opentelemetry.util.re").addFilter(_without_value)
    made.add_span_processor(BatchSpanProcessor(LoggingExporter(OTLPSpanExporter())))
    # The exporter logs each try; LoggingExporter logs once.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
    return made


def _without_value(record: logging.LogRecord) -> bool:
    """Keep the token out of the line about an OTEL_EXPORTER_OTLP_HEADERS that cannot be read."""
    record.msg, record.args = "an OTEL_*_HEADERS variable is no list of name=value: left out", ()
    return True


async def close(provider: TracerProvider) -> None:
    """Send the remaining spans, within CLOSE_TIMEOUT_S. A thread that hangs on a silent collector ends with the process."""
    loop, closed = asyncio.get_running_loop(), asyncio.Event()

    def shut_down() -> None:
        provider.shutdown()
        with contextlib.suppress(RuntimeError):  # the loop is closed: the wait has timed out
            loop.call_soon_threadsafe(closed.set)

    threading.Thread(target=shut_down, daemon=True).start()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await closed.wait()


class LoggingExporter(SpanExporter):
    """An exporter that logs when spans begin to be lost, and when that is over. Called from a thread, one batch at a time."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._context = contextvars.copy_context()  # so that a line names its process
        self._losing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        losing = result is not SpanExportResult.SUCCESS
        if losing != self._losing:
            self._losing = losing
            self._context.run(log.warning, "spans_lost" if losing else "spans_sent_again")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()
