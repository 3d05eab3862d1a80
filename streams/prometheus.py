"""The metrics on prometheus_client: counters and histograms from the hooks, gauges from a snapshot of the stream.

Import this module only if prometheus_client is installed; no other module needs it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge

from streams.histogram import Histograms, TraceId
from streams.inspector import StreamStats
from streams.metrics import METRICS, Metrics, Step


class PrometheusMetrics:
    """Registers every metric of `METRICS` under `<prefix>_` with `registry`. One per registry.

    Shared metrics go to the registry `shared`, if given: served by one process, they do not exist once per process. With
    `trace_id`, the times of messages have exemplars.
    """

    def __init__(
        self,
        *,
        prefix: str = "streams",
        registry: CollectorRegistry = REGISTRY,
        shared: CollectorRegistry | None = None,
        trace_id: TraceId | None = None,
    ) -> None:
        self._families: dict[str, Any] = {}
        for name, spec in METRICS.items():
            full = f"{prefix}_{name}"
            match spec.kind:
                case "counter":
                    self._families[name] = Counter(full, spec.help, spec.labels, registry=registry)
                case "gauge":
                    where = shared if spec.shared and shared is not None else registry
                    self._families[name] = Gauge(full, spec.help, spec.labels, registry=where)
                case "histogram":
                    self._families[name] = histograms = Histograms(
                        full,
                        spec.help,
                        spec.labels,
                        bounds=spec.buckets,
                        trace_id=trace_id if spec.of_one_message else None,
                    )
                    registry.register(histograms)
        self._shown: dict[str, dict[str, set[tuple[str, ...]]]] = defaultdict(lambda: defaultdict(set))

    def for_stream(self, stream: str, lanes: Sequence[str] = ()) -> Metrics:
        """Return the hooks for the producers and consumers of the stream of that name, which has these lanes."""
        return _StreamMetrics(self._families, stream, lanes)

    def show(self, stats: StreamStats) -> None:
        """Set the gauges to a snapshot, and remove those of consumers and groups that are gone."""
        fresh: dict[str, set[tuple[str, ...]]] = defaultdict(set)

        def put(name: str, value: float, *labels: str) -> None:
            fresh[name].add((stats.stream, *labels))
            self._families[name].labels(stats.stream, *labels).set(value)

        _put_all(stats, put)
        self._replace(stats.stream, fresh)

    def forget(self, stream: str) -> None:
        """Remove the gauges of a stream, since old values would be wrong while its server is away."""
        self._replace(stream, defaultdict(set))

    def _replace(self, stream: str, fresh: dict[str, set[tuple[str, ...]]]) -> None:
        for name, labels in self._shown[stream].items():
            for gone in labels - fresh[name]:
                self._families[name].remove(*gone)
        self._shown[stream] = fresh


def _put_all(stats: StreamStats, put: Any) -> None:
    for lane in stats.lanes:
        age_ms = 0 if lane.oldest_ms is None else max(0, stats.now_ms - lane.oldest_ms)
        put("stream_length", lane.length, lane.lane)
        put("stream_depth", lane.depth, lane.lane)
        put("stream_oldest_entry_seconds", age_ms / 1000, lane.lane)
        put("stream_group_messages_pending", lane.pending, lane.lane, stats.group)
        put("stream_group_consumers", lane.consumers, lane.lane, stats.group)
        if lane.lag is not None:
            put("stream_group_lag", lane.lag, lane.lane, stats.group)
    for each in stats.consumers:
        put("stream_group_consumer_messages_pending", each.pending, each.lane, stats.group, each.name)
        put("stream_group_consumer_idle_seconds", each.idle_ms / 1000, each.lane, stats.group, each.name)
    late_ms = 0 if stats.next_due_ms is None else max(0, stats.now_ms - stats.next_due_ms)
    put("delayed_messages", stats.delayed)
    put("delayed_overdue_seconds", late_ms / 1000)
    put("dead_letter_messages", stats.dead)


class _StreamMetrics(Metrics):
    """The hooks of one stream. The child of each label set is looked up once: `labels()` costs more than an increment."""

    def __init__(self, families: dict[str, Any], stream: str, lanes: Sequence[str]) -> None:
        @cache
        def child(name: str, *labels: str) -> Any:
            return families[name].labels(stream, *labels)

        self._child = child
        for name, spec in METRICS.items():
            # Exists as 0 from the start, so that `rate()` sees the first increase.
            if spec.kind == "counter" and spec.labels == ("stream",):
                child(name)
            if spec.kind == "counter" and spec.labels == ("stream", "lane"):
                for lane in lanes:
                    child(name, lane)

    def published(self, lane: str, count: int) -> None:
        self._child("messages_published", lane).inc(count)

    def batch(self, step: Step, size: int) -> None:
        self._child("batch_size", step).observe(size)

    def round_trip(self, step: Step, seconds: float) -> None:
        self._child("round_trip_seconds", step).observe(seconds)

    def started(self, lane: str, wait_s: float) -> None:
        self._child("message_wait_seconds", lane).observe(wait_s)

    def handled(self, lane: str, seconds: float) -> None:
        self._child("handler_seconds", lane).observe(seconds)

    def handler_error(self, lane: str) -> None:
        self._child("handler_errors", lane).inc()

    def settled(self, lane: str, outcome: str, count: int) -> None:
        self._child("messages_settled", lane, outcome).inc(count)

    def reclaimed(self, lane: str, count: int) -> None:
        self._child("messages_reclaimed", lane).inc(count)

    def promoted(self, count: int) -> None:
        self._child("messages_promoted").inc(count)

    def renewed(self, count: int) -> None:
        self._child("leases_renewed").inc(count)

    def lost(self, count: int) -> None:
        self._child("leases_lost").inc(count)

    def stale(self, lane: str, count: int) -> None:
        self._child("stale_outcomes", lane).inc(count)

    def group_recreated(self) -> None:
        self._child("groups_recreated").inc()

    def in_flight(self, count: int) -> None:
        self._child("in_flight_messages").set(count)
