"""The metrics of a dispatcher: zeros from the start, and no label that a client chooses."""

from __future__ import annotations

from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from okane.metrics import OkaneMetrics
from okane.webhooks.metrics import CONNECTION_KINDS, OUTCOMES, QUEUE_STATES, REPEAT_REASONS, DispatcherMetrics


@pytest.fixture
def metrics() -> DispatcherMetrics:
    return DispatcherMetrics(CollectorRegistry())


def value(metrics: DispatcherMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"okane_webhook_{name}", labels)


def test_every_counter_of_a_dispatcher_is_0_before_its_first_event(metrics: DispatcherMetrics) -> None:
    for outcome in OUTCOMES:
        assert value(metrics, "requests_total", outcome=outcome) == 0
    for why in REPEAT_REASONS:
        assert value(metrics, "repeats_total", why=why) == 0
    for kind in CONNECTION_KINDS:
        assert value(metrics, "connections_total", kind=kind) == 0
    for state in QUEUE_STATES:
        assert value(metrics, "queues", state=state) == 0
    assert value(metrics, "given_up_total") == value(metrics, "takeovers_total") == 0


def test_a_request_is_counted_with_its_outcome_and_duration(metrics: DispatcherMetrics) -> None:
    metrics.observe_request("timeout", 15.0)
    metrics.count_connection("kept")
    metrics.count_repeat("retry")
    metrics.observe_delivery(0.02)
    metrics.set_queues(healthy=3, failing=1)
    assert value(metrics, "requests_total", outcome="timeout") == 1
    assert value(metrics, "request_seconds_sum", outcome="timeout") == 15
    assert value(metrics, "connections_total", kind="kept") == 1
    assert value(metrics, "repeats_total", why="retry") == 1
    assert value(metrics, "delivery_seconds_count") == 1
    assert value(metrics, "queues", state="failing") == 1


def test_no_label_of_a_dispatcher_holds_an_endpoint(metrics: DispatcherMetrics) -> None:
    metrics.observe_request("delivered", 0.1)
    families = [family for family in metrics.registry.collect() if family.name.startswith("okane_webhook_")]
    labels = {name for family in families for sample in family.samples for name in sample.labels}
    assert labels == {"outcome", "why", "kind", "state", "le"}
    assert b"http" not in b"".join(
        line for line in generate_latest(metrics.registry).splitlines() if not line.startswith(b"#")
    )


def test_sequenced_events_are_counted_by_type_in_every_process() -> None:
    metrics = OkaneMetrics(CollectorRegistry())
    metrics.observe_sequenced({"payment.succeeded": 2, "payment.failed": 1}, timedelta(milliseconds=20))
    sample = metrics.registry.get_sample_value
    assert sample("okane_webhook_events_sequenced_total", {"type": "payment.succeeded"}) == 2
    assert sample("okane_webhook_sequence_lag_seconds_sum") == 0.02
