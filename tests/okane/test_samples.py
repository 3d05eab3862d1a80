"""Samples of /metrics, as the client library of Prometheus writes and reads them."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from okane.monitoring.samples import parse_samples

NASTY = ["", 'a"b', "a\\b", "a\\nb", "a\nb", "{}", "} 5", ',x="1"', "é\\", "\\\\", "# HELP", "\t"]


def test_samples_are_read_as_the_library_of_prometheus_reads_them() -> None:
    registry = CollectorRegistry()
    counter = Counter("made", "Help\nin two lines.", ["one", "other"], registry=registry)
    histogram = Histogram("took_seconds", "Help", ["lane"], registry=registry)
    for number, text in enumerate(NASTY):
        counter.labels(text, text[::-1]).inc(number * 1e9)
        histogram.labels(text).observe(0.3)
    for name, value in (("plain", 2.5), ("infinite", float("inf")), ("negative", -1e-9)):
        Gauge(name, "Help", registry=registry).set(value)
    text = generate_latest(registry).decode()
    expected = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert len(expected) > 200
    assert parse_samples(text) == expected


def test_a_sample_may_have_a_time() -> None:
    assert parse_samples('a 1 1795310392\nb{c="d"} 2 1795310392\n') == {
        ("a", frozenset()): 1.0,
        ("b", frozenset({("c", "d")})): 2.0,
    }


@pytest.mark.parametrize(
    "text", ["<html>", "a", "a{", "a{b} 1", "a 1 2 3", "a x", 'a{b="c"d} 1', 'a{b="c} 1', "1a 1", "a{} "]
)
def test_a_text_without_samples_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of several texts
        parse_samples(f"ok 1\n{text}\n")
