from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as Reference
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from streams.histogram import Histograms

BOUNDS = (0.001, 0.5, 1, 2.5, 60, 3600)


@given(st.lists(st.sampled_from([0.0, 0.0005, 0.001, 0.5, 0.75, 1.0, 2.0, 60.0, 3600.0, 10_000.0])))
def test_its_samples_equal_those_of_prometheus_client(values: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    histograms = Histograms("wait_seconds", "What it means.", ("lane",), bounds=BOUNDS)
    ours.register(histograms)
    reference = Reference("wait_seconds", "What it means.", ("lane",), registry=theirs, buckets=BOUNDS)
    for value in values:
        histograms.labels("low").observe(value)
        reference.labels("low").observe(value)
    expected = [line for line in generate_latest(theirs).decode().splitlines() if "_created" not in line]
    assert generate_latest(ours).decode().splitlines() == expected


def test_the_labels_are_those_of_the_family() -> None:
    with pytest.raises(ValueError, match="lane"):
        Histograms("x", "", ("lane",), bounds=BOUNDS).labels("a", "b")


def test_a_name_is_taken_once() -> None:
    registry = CollectorRegistry()
    registry.register(Histograms("x", "", (), bounds=BOUNDS))
    with pytest.raises(ValueError, match="x"):
        registry.register(Histograms("x", "", (), bounds=BOUNDS))


class Traces:
    """A source of the current trace id."""

    now: str | None = None

    def __call__(self) -> str | None:
        return self.now


def exemplars(registry: CollectorRegistry) -> dict[str, tuple[str, float]]:
    """Return trace and value by upper bound, read from OpenMetrics text."""
    text = openmetrics.generate_latest(registry).decode()  # type: ignore[no-untyped-call] # no types
    [family] = text_string_to_metric_families(text)  # type: ignore[no-untyped-call] # no types
    return {
        sample.labels["le"]: (sample.exemplar.labels["trace_id"], sample.exemplar.value)
        for sample in family.samples
        if sample.exemplar is not None
    }


def test_a_bucket_names_the_last_trace_that_was_recorded() -> None:
    traces, registry = Traces(), CollectorRegistry()
    histograms = Histograms("wait_seconds", "What it means.", ("lane",), bounds=BOUNDS, trace_id=traces)
    registry.register(histograms)
    for trace_id, value in (("a" * 32, 0.4), ("b" * 32, 0.3), (None, 0.2), ("c" * 32, 9000.0), (None, 2.0)):
        traces.now = trace_id
        histograms.labels("low").observe(value)
    assert exemplars(registry) == {"0.5": ("b" * 32, 0.3), "+Inf": ("c" * 32, 9000.0)}


def test_the_plain_text_has_no_exemplars_and_the_same_samples() -> None:
    traces, ours, theirs = Traces(), CollectorRegistry(), CollectorRegistry()
    traces.now = "a" * 32
    traced = Histograms("wait_seconds", "What it means.", ("lane",), bounds=BOUNDS, trace_id=traces)
    untraced = Histograms("wait_seconds", "What it means.", ("lane",), bounds=BOUNDS)
    ours.register(traced)
    theirs.register(untraced)
    for histograms in (traced, untraced):
        histograms.labels("low").observe(0.4)
    assert generate_latest(ours) == generate_latest(theirs)
