"""Sends finished spans to a collector, over OTLP/HTTP, as the standard OTEL_* variables say.

Promise: no payment waits for a collector, nor does a process that ends, for longer than a moment. A collector that is away
costs spans, and is said once.
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
    """What makes spans and sends them on. The sampler is the one that OTEL_TRACES_SAMPLER names."""
    ours = Resource.create({"service.name": f"okane-{role}", "service.instance.id": name})
    resource = ours.merge(OTELResourceDetector().detect())  # what the environment says wins
    made = TracerProvider(resource=resource, shutdown_on_exit=False)
    logging.getLogger("opentelemetry.util.re").addFilter(_without_value)
    made.add_span_processor(BatchSpanProcessor(Telling(OTLPSpanExporter())))
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)  # a line for each try: ours says it once
    return made


def _without_value(record: logging.LogRecord) -> bool:
    """Keep the token out of the line about an OTEL_EXPORTER_OTLP_HEADERS that cannot be read."""
    record.msg, record.args = "an OTEL_*_HEADERS variable is no list of name=value: left out", ()
    return True


async def close(provider: TracerProvider) -> None:
    """Send what is left, for a moment. A thread that hangs on a silent collector ends with the process."""
    loop, closed = asyncio.get_running_loop(), asyncio.Event()

    def shut_down() -> None:
        provider.shutdown()
        with contextlib.suppress(RuntimeError):  # nobody has waited for so long: the loop is closed
            loop.call_soon_threadsafe(closed.set)

    threading.Thread(target=shut_down, daemon=True).start()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await closed.wait()


class Telling(SpanExporter):
    """Says when spans begin to be lost, and when that is over. Called from a thread, one batch at a time."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._context = contextvars.copy_context()  # so that a line says which process it is of
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
