"""The gauges of captures, voids and refunds in the whole system, read from Postgres at the scrape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta

from prometheus_client import CollectorRegistry, Gauge

from okane.operation import TERMINAL, OperationKind, OperationStatus


class OperationGauges:
    """The gauges of one process. Any can serve them; one is scraped."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._waiting = Gauge(
            "okane_operations_waiting",
            "Captures, voids and refunds that are not at rest, by kind and status; needs_review: a human decides.",
            ["kind", "status"],
            registry=registry,
        )
        self._oldest_due = Gauge(
            "okane_oldest_due_operation_seconds",
            "How long the longest waiting capture, void or refund has been due, from Postgres.",
            registry=registry,
        )

        self._dead = Gauge(
            "okane_operations_dead",
            "Captures, voids and refunds given up, until replayed, decided or purged (okane dead ls --operations).",
            registry=registry,
        )

    def show(
        self, *, oldest_due: timedelta, dead: int, waiting: Mapping[tuple[OperationKind, OperationStatus], int]
    ) -> None:
        """Show the figures of this scrape."""
        self._oldest_due.set(oldest_due.total_seconds())
        self._dead.set(dead)
        for kind in OperationKind:
            for status in OperationStatus:
                if status not in TERMINAL:
                    self._waiting.labels(kind, status).set(waiting.get((kind, status), 0))

    def forget(self) -> None:
        """Show NaN while Postgres is away: an old value, or a zero, would be wrong."""
        self._oldest_due.set(math.nan)
        self._dead.set(math.nan)
        for kind in OperationKind:
            for status in OperationStatus:
                if status not in TERMINAL:
                    self._waiting.labels(kind, status).set(math.nan)
