"""The metrics of captures, voids and refunds in a worker, with their help texts."""

from __future__ import annotations

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge

from okane.operation import OperationKind, OperationStatus
from streams.histogram import Histograms

# Seconds. A refund settles in milliseconds, or when a bank has decided, days later.
_SETTLE = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 3_600, 86_400, 604_800)
SETTLED_AS = (
    OperationStatus.SUCCESS,
    OperationStatus.SUBMITTED,
    OperationStatus.FAILED_RETRYABLE,
    OperationStatus.FAILED_FINAL,
    OperationStatus.UNKNOWN,
    OperationStatus.NEEDS_REVIEW,
)
LATE_EVENTS = ("success", "declined", "spent", "unavailable", "deferred", "pending", "unknown", "needs_review")


class OperationMetrics:
    """The metrics of the operations of one worker, beside those of its process (`okane.metrics.OkaneMetrics`)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.claims = Counter(
            "okane_operation_claims",
            "Claims of captures, voids and refunds by result: granted; closed (and looked up again); no_provider; or the "
            "status that refused it (a duplicate wake-up: harmless).",
            ["result"],
            registry=registry,
        )
        self.settled = Counter(
            "okane_operations_settled",
            "Outcomes of captures, voids and refunds, by kind and the status they led to (failed_retryable, submitted and "
            "unknown are open: looked up or tried again).",
            ["kind", "status"],
            registry=registry,
        )
        self.settle_seconds = Histograms(
            "okane_operation_settle_seconds",
            "From the request of a capture, void or refund to its final status, by Postgres' clock.",
            ["kind", "status"],
            bounds=_SETTLE,
        )
        self.late_results = Counter(
            "okane_operation_late_results",
            "Outcomes of captures, voids and refunds that came after their attempt had lost them: kept as events.",
            ["kind", "event"],
            registry=registry,
        )
        self.late_operations = Counter(
            "okane_late_operations",
            "Captures, voids and refunds that a later look-up found to have ended otherwise, by kind and event: success, "
            "money that moved for a closed one (needs_review); declined, a refund that came back.",
            ["kind", "event"],
            registry=registry,
        )
        self.in_flight = Gauge(
            "okane_operations_in_flight",
            "Captures, voids and refunds this process holds a claim on right now.",
            registry=registry,
        )
        registry.register(self.settle_seconds)
        # Exist as 0 from the start, so that `rate()` sees the first increase.
        for kind in OperationKind:
            for status in SETTLED_AS:
                self.settled.labels(kind, status)
            self.settle_seconds.labels(kind, OperationStatus.SUCCESS)
            for event in LATE_EVENTS:
                self.late_results.labels(kind, event)
            for event in ("success", "declined"):
                self.late_operations.labels(kind, event)
        self.claims.labels("granted")
        self.count_claim = cache(self.claims.labels)
