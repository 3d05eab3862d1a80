from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client import Counter as Reference
from prometheus_client.exposition import generate_latest

from streams.counter import Counters


def test_its_samples_equal_those_of_prometheus_client() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counters = Counters("waits", "Waits that ended.", ("lane", "reason"), registry=ours)
    reference = Reference("waits", "Waits that ended.", ("lane", "reason"), registry=theirs)
    for values, count in ((("low", 'a "quoted" one'), 3), (("low", "none more"), 0)):
        for family in (counters, reference):
            family.labels(*values).inc()
            family.labels(*values).inc(count)
    counters.labels("low", "not yet")  # shown as 0 before its first event
    reference.labels("low", "not yet")
    expected = [line for line in generate_latest(theirs).decode().splitlines() if "_created" not in line]
    assert generate_latest(ours).decode().splitlines() == expected


def test_the_labels_are_those_of_the_family() -> None:
    with pytest.raises(ValueError, match="lane"):
        Counters("x", "", ("lane",), registry=CollectorRegistry()).labels("a", "b")


def test_a_name_is_taken_once() -> None:
    registry = CollectorRegistry()
    Counters("x", "", (), registry=registry)
    with pytest.raises(ValueError, match="x"):
        Counters("x", "", (), registry=registry)
