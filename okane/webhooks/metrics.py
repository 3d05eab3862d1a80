"""The metrics of a dispatcher, with their help texts. No label holds an endpoint: `okane webhooks ls` shows endpoints.

Those of the whole system (outbox, backlog, states of endpoints) are in `okane.app.system_metrics`: they are right while no
dispatcher runs, too.
"""

from __future__ import annotations

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge

from streams.histogram import Histograms

# Seconds. A receiver answers in milliseconds or at the time-out; a delivery may wait for 76 hours.
_REQUEST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30)
_DELIVERY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 1_800, 7_200, 86_400, 259_200)

OUTCOMES = (
    "delivered",
    "status_3xx",
    "status_4xx",
    "status_410",
    "status_5xx",
    "timeout",
    "connect",
    "tls",
    "dns",
    "guard",
)
REPEAT_REASONS = ("retry", "replay", "reconnect", "takeover")
QUEUE_STATES = ("healthy", "failing")
CONNECTION_KINDS = ("new", "kept")


class DispatcherMetrics:
    """The metrics of one dispatcher's process, beside those of every process (`okane.metrics.OkaneMetrics`)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.requests = Counter(
            "okane_webhook_requests",
            "Requests to endpoints that ended, by outcome: delivered (2xx), the class of another status, timeout, or the "
            "part that failed: connect, tls, dns, guard (the address is not allowed).",
            ["outcome"],
            registry=registry,
        )
        self.request_seconds = Histograms(
            "okane_webhook_request_seconds",
            "Duration of requests to endpoints, connecting included, by outcome.",
            ["outcome"],
            bounds=_REQUEST,
        )
        self.delivery_seconds = Histograms(
            "okane_webhook_delivery_seconds",
            "From a payment's change to the endpoint's 2xx, retries included. Replays do not count.",
            [],
            bounds=_DELIVERY,
        )
        self.repeats = Counter(
            "okane_webhook_repeats",
            "Requests for an event that the endpoint may have received before, by reason: retry (an attempt failed), replay "
            "(redelivered or recovered on request), reconnect (a kept connection had closed), takeover (the dispatcher "
            "before this one died with the event in hand).",
            ["why"],
            registry=registry,
        )
        self.given_up = Counter(
            "okane_webhook_given_up",
            "Deliveries given up after 76 hours of attempts, or because their events left the retention.",
            registry=registry,
        )
        self.takeovers = Counter(
            "okane_webhook_takeovers",
            "Endpoint queues taken over after the lease of another dispatcher had expired: it died, or was stopped.",
            registry=registry,
        )
        self.connections = Counter(
            "okane_webhook_connections",
            "Requests to endpoints by their connection: new, or kept from an earlier request.",
            ["kind"],
            registry=registry,
        )
        self.in_flight = Gauge(
            "okane_webhook_in_flight", "Requests to endpoints that this process waits for right now.", registry=registry
        )
        self.queues = Gauge(
            "okane_webhook_queues",
            "Endpoint queues that this process has leased, by state: healthy, or failing (no 2xx since the last failure).",
            ["state"],
            registry=registry,
        )
        registry.register(self.request_seconds)
        registry.register(self.delivery_seconds)
        self._delivery = self.delivery_seconds.labels()
        self._requests = cache(self.requests.labels)  # `labels()` costs more than an increment
        self._repeats = cache(self.repeats.labels)
        self._connections = cache(self.connections.labels)
        self._show_zeros()

    def _show_zeros(self) -> None:
        """Show counters as 0 before their first event: one that begins at 1 hides its first increase."""
        for outcome in OUTCOMES:
            self._requests(outcome)
        for why in REPEAT_REASONS:
            self._repeats(why)
        for kind in CONNECTION_KINDS:
            self._connections(kind)
        self.set_queues(healthy=0, failing=0)

    def observe_request(self, outcome: str, seconds: float) -> None:
        """Count one request with its outcome (`OUTCOMES`) and its duration."""
        self._requests(outcome).inc()
        self.request_seconds.labels(outcome).observe(seconds)

    def observe_delivery(self, seconds: float) -> None:
        """Record the time from a change to its first 2xx at an endpoint."""
        self._delivery.observe(seconds)

    def count_repeat(self, why: str) -> None:
        """Count a request for an event that the endpoint may have received before (`REPEAT_REASONS`)."""
        self._repeats(why).inc()

    def count_connection(self, kind: str) -> None:
        """Count a request on a `new` or a `kept` connection."""
        self._connections(kind).inc()

    def set_queues(self, *, healthy: int, failing: int) -> None:
        """Show the number of leased endpoint queues."""
        self.queues.labels("healthy").set(healthy)
        self.queues.labels("failing").set(failing)
