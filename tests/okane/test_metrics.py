"""Metrics as an interface: bounded series, whatever a provider says."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry

from okane.metrics import MAX_DECLINE_CODES, OkaneMetrics


def declines(metrics: OkaneMetrics) -> Mapping[str, float]:
    """Return the number of declines by code."""
    [family] = [one for one in metrics.registry.collect() if one.name == "okane_payments_declined"]
    return {sample.labels["code"]: sample.value for sample in family.samples if sample.name.endswith("_total")}


def test_decline_codes_are_told_apart() -> None:
    metrics = OkaneMetrics(CollectorRegistry())
    for code in ("card_declined", "expired_card", "card_declined"):
        metrics.count_decline("mock", code)
    assert declines(metrics) == {"card_declined": 2, "expired_card": 1}


def test_requests_that_a_provider_finds_invalid_are_told_apart_for_their_alert() -> None:
    metrics = OkaneMetrics(CollectorRegistry())
    metrics.count_decline("stripe", "invalid_request:parameter_invalid_integer")
    metrics.count_decline("stripe", "invalid_request")
    assert declines(metrics) == {"invalid_request:parameter_invalid_integer": 1, "invalid_request": 1}


def test_codes_that_are_sentences_or_ids_share_one_series() -> None:
    metrics = OkaneMetrics(CollectorRegistry())
    for code in ("Your card was declined.", "019a-4711", "", "x" * 41, "one\nline"):
        metrics.count_decline("mock", code)
    assert declines(metrics) == {"other": 5}


def test_a_provider_cannot_make_endless_series() -> None:
    metrics = OkaneMetrics(CollectorRegistry())
    for _ in range(2):
        for number in range(1000):
            metrics.count_decline("mock", f"code_{number}")
    found = declines(metrics)
    assert len(found) == MAX_DECLINE_CODES + 1
    assert found["code_0"] == 2
    assert found["other"] == 2 * (1000 - MAX_DECLINE_CODES)


def test_the_counters_of_a_provider_are_there_before_it_is_used() -> None:
    metrics = OkaneMetrics(CollectorRegistry())
    metrics.show_provider("p")
    value = metrics.registry.get_sample_value
    assert value("okane_provider_circuit_open", {"provider": "p", "level": "worker"}) == 0
    assert value("okane_late_charges_total", {"provider": "p"}) == 0
    for reason in ("circuit_open", "rate_limit", "limit", "config"):
        assert value("okane_provider_deferred_total", {"provider": "p", "reason": reason}) == 0
