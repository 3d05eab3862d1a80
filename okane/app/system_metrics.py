"""The metrics of the whole system, with their help texts. (`okane.metrics` has those of one process.)

They are read from Postgres at the scrape: so they are right after a kill -9, too, and scraped once, not once per worker.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import timedelta

from prometheus_client import CollectorRegistry, Gauge

from okane.metrics import ENDPOINT_STATES
from okane.payment import Status

PROVIDER_MODES = ("on", "drain", "off")


class SystemMetrics:
    """The gauges of one process. Any can serve them; one is scraped."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.oldest_due = Gauge(
            "okane_oldest_due_seconds",
            "How long the longest waiting payment has been due, from Postgres: the truth to alert on.",
            registry=registry,
        )
        self.waiting = Gauge(
            "okane_payments_waiting",
            "Payments off the happy path, by status: scheduled, to be retried, looked up (closed, too), swept, or decided "
            "by a human.",
            ["status"],
            registry=registry,
        )
        self.provider_mode = Gauge(
            "okane_provider_mode",
            "1 for the mode in which an operator has put the provider: on, drain, off (okane providers ls).",
            ["provider", "mode"],
            registry=registry,
        )
        self.circuit_open = Gauge(
            "okane_provider_circuit_open",
            "1 while the provider's circuit breaker is open for the claims of all workers.",
            ["provider", "level"],
            registry=registry,
        )
        self.reconcile_age = Gauge(
            "okane_reconcile_age_seconds",
            "Time since okane reconcile has compared a day of the provider to its end; of providers that are compared as a "
            "routine.",
            ["provider"],
            registry=registry,
        )
        self.reconcile_differences = Gauge(
            "okane_reconcile_differences",
            "Differences that the last comparison of each of the last seven days left, by provider and kind (okane "
            "reconcile).",
            ["provider", "kind"],
            registry=registry,
        )
        self.dead = Gauge(
            "okane_payments_dead",
            "Dead letters, from Postgres: payments given up, until replayed, decided or purged (okane dead ls).",
            registry=registry,
        )
        self.partitions_ahead = Gauge(
            "okane_partitions_ahead_seconds",
            "Time until no table partition takes payments (okane partitions); +Inf if they are in one table.",
            registry=registry,
        )
        self.disputes_to_answer = Gauge(
            "okane_disputes_to_answer",
            "Disputes that wait for evidence, from Postgres, by provider (GET /v1/disputes?status=needs_response).",
            ["provider"],
            registry=registry,
        )
        self.webhook_outbox_changes = Gauge(
            "okane_webhook_outbox_changes", "Changes that have no place in the log of events yet.", registry=registry
        )
        self.webhook_outbox_oldest = Gauge(
            "okane_webhook_outbox_oldest_seconds",
            "Age of the oldest change without a place in the log; near 0 while a dispatcher or a worker runs.",
            registry=registry,
        )
        self.webhook_endpoints = Gauge(
            "okane_webhook_endpoints",
            "Endpoints by state: healthy, failing (no 2xx since its first failure), disabled.",
            ["state"],
            registry=registry,
        )
        self.webhook_unowned = Gauge(
            "okane_webhook_unowned_endpoints", "Enabled endpoints that no dispatcher has leased.", registry=registry
        )
        self.webhook_backlog = Gauge(
            "okane_webhook_backlog_events",
            "Events that endpoints have not received yet, by the state of the endpoint; of each at most 10,000 count.",
            ["state"],
            registry=registry,
        )
        self.webhook_oldest = Gauge(
            "okane_webhook_oldest_seconds",
            "Age of the oldest event that was not sent yet, by the state of its endpoint. Waiting retries do not count.",
            ["state"],
            registry=registry,
        )
        self.webhook_failing = Gauge(
            "okane_webhook_failing_seconds",
            "Time since the first failure of the enabled endpoint that has failed for longest.",
            registry=registry,
        )
        self.webhook_log_bytes = Gauge(
            "okane_webhook_log_bytes",
            "Size of the log of events and of its deliveries, with indexes.",
            registry=registry,
        )
        self.webhook_retention_used = Gauge(
            "okane_webhook_retention_used_ratio",
            "Share of the retention (age or size) that the endpoint furthest behind has used: from 1 on it loses events.",
            registry=registry,
        )
        self.up = Gauge(
            "okane_dependency_up", "1 if the last scrape could read from it.", ["dependency"], registry=registry
        )

    def forget_waiting(self) -> None:
        """Show NaN while Postgres is away: an old value, or a zero, would be wrong."""
        self.dead.set(math.nan)
        self.oldest_due.set(math.nan)
        self.partitions_ahead.set(math.nan)
        self.forget_webhooks()
        self.provider_mode.clear()
        self.circuit_open.clear()
        self.reconcile_age.clear()
        self.reconcile_differences.clear()
        self.disputes_to_answer.clear()
        for status in Status:
            if status is not Status.SUCCESS:
                self.waiting.labels(status.value).set(math.nan)

    def set_providers(self, providers: Iterable[tuple[str, str, bool]]) -> None:
        """Show the providers that Postgres has rows of: name, mode, and True if the breaker is open for all workers."""
        self.provider_mode.clear()
        self.circuit_open.clear()
        for name, mode, is_open in providers:
            self.circuit_open.labels(name, "shared").set(is_open)
            for each in PROVIDER_MODES:
                self.provider_mode.labels(name, each).set(each == mode)

    def set_differences(self, found: Iterable[tuple[str, str, int]]) -> None:
        """Show the differences that comparisons have left: provider, kind, number."""
        self.reconcile_differences.clear()
        for provider, kind, count in found:
            self.reconcile_differences.labels(provider, kind).set(count)

    def set_reconcile_ages(self, ages: Mapping[str, timedelta]) -> None:
        """Show the time since the last comparison with each provider."""
        self.reconcile_age.clear()
        for provider, age in ages.items():
            self.reconcile_age.labels(provider).set(age.total_seconds())

    def set_partitions_ahead(self, ahead: timedelta | None) -> None:
        """Show the time for which table partitions are made. None: payments are in one table."""
        self.partitions_ahead.set(math.inf if ahead is None else ahead.total_seconds())

    def set_disputes(self, to_answer: Mapping[str, int]) -> None:
        """Show how many disputes wait for evidence, by provider."""
        self.disputes_to_answer.clear()
        for provider, count in to_answer.items():
            self.disputes_to_answer.labels(provider).set(count)

    def set_waiting(self, *, oldest_due: timedelta, dead: int, waiting: Mapping[Status, int]) -> None:
        """Show the figures of this scrape."""
        self.dead.set(dead)
        self.oldest_due.set(oldest_due.total_seconds())
        for status in Status:
            if status is not Status.SUCCESS:
                self.waiting.labels(status.value).set(waiting.get(status, 0))

    def forget_webhooks(self) -> None:
        """Show NaN for everything about webhooks."""
        unlabelled = (
            self.webhook_outbox_changes,
            self.webhook_outbox_oldest,
            self.webhook_unowned,
            self.webhook_failing,
            self.webhook_log_bytes,
            self.webhook_retention_used,
        )
        for gauge in unlabelled:
            gauge.set(math.nan)
        for gauge in (self.webhook_endpoints, self.webhook_backlog, self.webhook_oldest):
            for state in ENDPOINT_STATES:
                gauge.labels(state).set(math.nan)

    def set_endpoint_state(self, state: str, *, endpoints: int, backlog: int, oldest: timedelta) -> None:
        """Show the endpoints in one state (`ENDPOINT_STATES`)."""
        self.webhook_endpoints.labels(state).set(endpoints)
        self.webhook_backlog.labels(state).set(backlog)
        self.webhook_oldest.labels(state).set(oldest.total_seconds())
