"""Tracing that is on, put together."""

from __future__ import annotations

from functools import partial

from opentelemetry.sdk.trace import TracerProvider

from okane.config import Settings
from okane.tracing import Tracing, export
from okane.tracing.spans import Spans, header, trace_id
from okane.tracing.traced import TracedProvider, TracedPublisher, TracedStore, traced_handler


def tracing(settings: Settings, *, role: str, name: str) -> Tracing:
    """What sends its spans to a collector."""
    return by(export.provider(role=role, name=name), settings)


def by(provider: TracerProvider, settings: Settings) -> Tracing:
    """What gives its spans to this provider."""
    spans = Spans(provider, stream=settings.stream, group=settings.group)
    return Tracing(
        requests=spans,
        messages=spans,
        trace_id=trace_id,
        provider_header=header,
        store=partial(TracedStore, spans=spans),
        publisher=partial(TracedPublisher, spans),
        provider=partial(TracedProvider, spans),
        handler=partial(traced_handler, spans),
        aclose=partial(export.close, provider),
    )
