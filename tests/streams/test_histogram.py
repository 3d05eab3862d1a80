from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as Reference
from prometheus_client.exposition import generate_latest

from streams.histogram import Histograms

BOUNDS = (0.001, 0.5, 1, 2.5, 60, 3600)


@given(st.lists(st.sampled_from([0.0, 0.0005, 0.001, 0.5, 0.75, 1.0, 2.0, 60.0, 3600.0, 10_000.0])))
def test_it_says_what_the_librarys_own_would(values: list[float]) -> None:
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
