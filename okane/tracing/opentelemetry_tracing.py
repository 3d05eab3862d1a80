"""The composition of tracing by OpenTelemetry."""

from __future__ import annotations

from functools import partial

from opentelemetry.sdk.trace import TracerProvider

from okane.config import Settings
from okane.tracing import Tracing, export
from okane.tracing.spans import OPERATION_ID, SpanFactory, current_trace_id, traceparent_header
from okane.tracing.wrappers import TracedClaimStore, TracedProvider, TracedPublisher, TracedRowWriter, traced_handler


def exporting(settings: Settings, *, role: str, name: str) -> Tracing:
    """Return tracing that sends its spans to a collector."""
    return recording(export.provider(role=role, name=name), settings)


def recording(provider: TracerProvider, settings: Settings) -> Tracing:
    """Return tracing that gives its spans to this provider."""
    spans = SpanFactory(provider, stream=settings.stream, group=settings.group)
    of_operations = SpanFactory(
        provider, stream=settings.operations_stream_name, group=settings.group, subject=OPERATION_ID
    )
    return Tracing(
        of_operations=Tracing(
            messages=of_operations,
            publisher=partial(TracedPublisher, of_operations),
            handler=partial(traced_handler, of_operations),
        ),
        requests=spans,
        messages=spans,
        trace_id=current_trace_id,
        provider_header=traceparent_header,
        row_writer=TracedRowWriter,
        claim_store=partial(TracedClaimStore, spans),
        publisher=partial(TracedPublisher, spans),
        provider=partial(TracedProvider, spans),
        handler=partial(traced_handler, spans),
        aclose=partial(export.close, provider),
    )
