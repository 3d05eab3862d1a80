"""The metrics of the payment half, with their help texts. (`streams.metrics` has those of the queue.)

Each process has one registry and one loopback port, and no multiprocess files: the last counts of a dead worker are lost with
it. Metrics of the whole system have a registry and a path of their own (`okane.app.system_metrics`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric, ProcessCollector

from okane.lanes import LANES
from okane.payment import TRANSITIONS, Status
from streams.counter import Counters
from streams.histogram import Histograms, TraceId

# Seconds. The pipeline settles in milliseconds when it is well and in minutes when a provider is not.
_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SLOW = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 30, 60, 300, 900, 3600)
MAX_DECLINE_CODES = 40
DEFER_REASONS = ("circuit_open", "rate_limit", "limit", "config")
ENDPOINT_STATES = ("healthy", "failing", "disabled")
_DECLINE_CODE = re.compile(r"(invalid_request:)?[A-Za-z][\w.-]{0,39}", re.ASCII)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class _NamedProcessCollector(ProcessCollector):
    """The process collector of the library, whose samples can be selected by name."""

    def describe(self) -> Iterable[Metric]:
        return self.collect()


class OkaneMetrics:
    """The metrics of one process. With `trace_id`, the times of requests, calls and payments have exemplars."""

    def __init__(self, registry: CollectorRegistry, *, trace_id: TraceId | None = None) -> None:
        self.registry = registry
        _NamedProcessCollector(registry=registry)
        self.accepted = Counters(
            "okane_payments_accepted",
            "Requests for a payment that were answered 2xx, by whether they made it or repeated an earlier one.",
            ["result"],
            registry=registry,
        )
        self.not_enqueued = Counter(
            "okane_payments_not_enqueued",
            "New payments whose wake-up could not be sent at once; the sweep sends it. Above zero: look at Redis.",
            registry=registry,
        )
        self.http_seconds = Histograms(
            "okane_http_request_seconds",
            "From the last byte of the head of a request to its answer, by route, method and status code.",
            ["route", "method", "code"],
            bounds=_FAST,
            trace_id=trace_id,
        )
        self.settled = Counters(
            "okane_payments_settled",
            "Outcomes written, by the status they led to (failed_retryable and unknown are open: tried again).",
            ["status"],
            registry=registry,
        )
        self.settle_seconds = Histograms(
            "okane_payment_settle_seconds",
            "From acceptance to the final status, retries included, by Postgres' clock.",
            ["status"],
            bounds=_SLOW,
            trace_id=trace_id,
        )
        self.attempts = Counters(
            "okane_provider_attempts",
            "Provider calls by provider, call (charge, look_up, release, capture, void, refund) and outcome (approved, "
            "authorized, pending, declined, unavailable, unknown, not_found).",
            ["provider", "call", "outcome"],
            registry=registry,
        )
        self.provider_seconds = Histograms(
            "okane_provider_call_seconds",
            "Duration of provider calls.",
            ["provider", "call"],
            bounds=_FAST,
            trace_id=trace_id,
        )
        self.declined = Counter(
            "okane_payments_declined",
            "Charges the provider declined, by its code; `other` for codes that are no short words, and beyond 40 of them.",
            ["provider", "code"],
            registry=registry,
        )
        self._decline_codes: set[str] = set()
        self.retries = Counter(
            "okane_payment_retries", "Attempts that led to another try, by provider.", ["provider"], registry=registry
        )
        self.circuit_open = Gauge(
            "okane_provider_circuit_open",
            "1 while the provider's circuit breaker is not closed in this process: only probes call it.",
            ["provider", "level"],
            registry=registry,
        )
        self.provider_deferred = Counter(
            "okane_provider_deferred",
            "Payments that waited without an attempt burned, by provider and reason: circuit_open, rate_limit (ours); "
            "limit (the provider's), config (it refuses our key).",
            ["provider", "reason"],
            registry=registry,
        )
        self.claims = Counters(
            "okane_claims",
            "Claims by result: granted; expired; closed (and looked up again, as planned); no_provider; or the status that "
            "refused it (a duplicate wake-up: harmless).",
            ["result"],
            registry=registry,
        )
        self.late_results = Counter(
            "okane_late_results",
            "Outcomes that came after their attempt had lost the payment: kept as events.",
            ["event"],
            registry=registry,
        )
        self.late_charges = Counter(
            "okane_late_charges",
            "Charges that a later look-up found for a payment closed without one: needs_review. Above zero: look at once.",
            ["provider"],
            registry=registry,
        )
        self.notices = Counter(
            "okane_provider_notices",
            "Notices in the webhooks of providers, by result: taken; repeated; unmatched (no such payment at this provider); "
            "invalid (a webhook with a wrong or old signature, or unreadable: refused).",
            ["provider", "result"],
            registry=registry,
        )
        self.in_flight = Gauge(
            "okane_payments_in_flight", "Payments this process holds a claim on right now.", registry=registry
        )
        self.sweep_repairs = Counter(
            "okane_sweep_repairs",
            "Wake-ups the sweep had to send, by lane: 0 but for faults, spilled backlog and skewed clocks.",
            ["lane"],
            registry=registry,
        )
        self.direct = Counter(
            "okane_direct_runs",
            "Payments and operations run straight from Postgres because Redis was away, by lane.",
            ["lane"],
            registry=registry,
        )
        self.batch_size = Histograms(
            "okane_store_batch_size",
            "Callers that shared one round trip to Postgres, by statement.",
            ["statement"],
            bounds=_SIZES,
        )
        self.round_trip_seconds = Histograms(
            "okane_store_round_trip_seconds",
            "Duration of round trips to Postgres, by statement; each has a connection of its own, so the sum per second is "
            "how busy that one is.",
            ["statement"],
            bounds=_FAST,
        )
        self.webhook_events = Counter(
            "okane_webhook_events_sequenced",
            "Events that this process gave a place in the log, by type; of accounts with endpoints only.",
            ["type"],
            registry=registry,
        )
        self.sequence_lag_seconds = Histograms(
            "okane_webhook_sequence_lag_seconds",
            "From a change to its place in the log, by Postgres' clock: the longest of each run.",
            [],
            bounds=_SLOW,
        )
        for histograms in (
            self.sequence_lag_seconds,
            self.http_seconds,
            self.settle_seconds,
            self.provider_seconds,
            self.batch_size,
            self.round_trip_seconds,
        ):
            registry.register(histograms)
        self._round_trips = cache(self.round_trip_seconds.labels)
        self._show_zeros()

    def _show_zeros(self) -> None:
        """Show counters as 0 before their first event: one that begins at 1 hides its first increase."""
        for result in ("created", "replayed"):
            self.accepted.labels(result)
        for status in Status:
            if status in TRANSITIONS[Status.PROCESSING] and status is not Status.PROCESSING:
                self.settled.labels(status.value)
        events = (
            "success",
            "declined",
            "spent",
            "unavailable",
            "deferred",
            "pending",
            "unknown",
            "needs_review",
            "fell_back",
        )
        for event in events:
            self.late_results.labels(event)
        for lane in LANES:
            self.sweep_repairs.labels(lane.name)
            self.direct.labels(lane.name)

    def show_notice_zeros(self, providers: Iterable[str]) -> None:
        """Show the notices of these providers as 0."""
        for provider in providers:
            for result in ("taken", "repeated", "unmatched", "invalid"):
                self.notices.labels(provider, result)

    def observe_sequenced(self, counts: Mapping[str, int], lag: timedelta) -> None:
        """Record one run of the sequencer that found events: their number by type, and how old the oldest change was."""
        for type_, count in counts.items():
            self.webhook_events.labels(type_).inc(count)
        self.sequence_lag_seconds.labels().observe(lag.total_seconds())

    def observe_batch(self, statement: str, size: int) -> None:
        """Record the size of one batch of the store."""
        self.batch_size.labels(statement).observe(size)

    def observe_round_trip(self, statement: str, seconds: float) -> None:
        """Record the duration of one round trip of the store."""
        self._round_trips(statement).observe(seconds)

    def show_provider(self, provider: str) -> None:
        """Show the gauges and counters of a worker's provider before anything has happened there."""
        self.circuit_open.labels(provider, "worker").set(0)
        self.late_charges.labels(provider)
        for reason in DEFER_REASONS:
            self.provider_deferred.labels(provider, reason)

    def count_decline(self, provider: str, code: str) -> None:
        """Count a decline. The codes are the provider's: their number is bounded, since each makes a time series."""
        if code not in self._decline_codes:
            if len(self._decline_codes) < MAX_DECLINE_CODES and _DECLINE_CODE.fullmatch(code):
                self._decline_codes.add(code)
            else:
                code = "other"
        self.declined.labels(provider, code).inc()
