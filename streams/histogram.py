"""A histogram for the hot path, without the locks and checks of prometheus_client, which cost microseconds.

One thread observes. A scrape from another thread may miss the current observation; the next scrape has it.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from prometheus_client.core import Exemplar, HistogramMetricFamily
from prometheus_client.registry import Collector

Bucket = tuple[str, float] | tuple[str, float, Exemplar]  # upper bound, values up to it
TraceId = Callable[[], str | None]  # returns the id of the current trace, if one is recorded


class Histogram:
    """The histogram of one set of labels."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def buckets(self, les: Sequence[str]) -> Sequence[Bucket]:
        """Return the cumulative buckets; `les` are their names."""
        return list(zip(les, accumulate(self.counts), strict=True))


class TracedHistogram(Histogram):
    """A histogram that keeps, for each bucket, the trace of its last value."""

    __slots__ = ("_exemplars", "_trace_id")

    def __init__(self, bounds: Sequence[float], trace_id: TraceId) -> None:
        super().__init__(bounds)
        self._trace_id = trace_id
        self._exemplars: list[Exemplar | None] = [None] * len(self.counts)

    def observe(self, value: float) -> None:
        """Count a value."""
        at = bisect_left(self._bounds, value)
        self.counts[at] += 1
        self.total += value
        trace_id = self._trace_id()
        if trace_id is not None:
            self._exemplars[at] = Exemplar({"trace_id": trace_id}, value, time.time())

    def buckets(self, les: Sequence[str]) -> Sequence[Bucket]:
        """Return the cumulative buckets with their exemplars."""
        return [
            (le, count) if exemplar is None else (le, count, exemplar)
            for le, count, exemplar in zip(les, accumulate(self.counts), self._exemplars, strict=True)
        ]


class Histograms(Collector):
    """A family of histograms with the same name. `bounds` are the upper bounds of the buckets, without infinity.

    With `trace_id` they have exemplars, which name the trace recorded during an observation.
    """

    def __init__(
        self,
        name: str,
        meaning: str,
        labels: Sequence[str],
        *,
        bounds: Sequence[float],
        trace_id: TraceId | None = None,
    ) -> None:
        self._name = name
        self._meaning = meaning
        self._labels = tuple(labels)
        self._bounds = tuple(bounds)
        self._les = [*(f"{bound:g}" if bound >= 1e6 else repr(float(bound)) for bound in bounds), "+Inf"]
        self._trace_id = trace_id
        self._children: dict[tuple[str, ...], Histogram] = {}

    def labels(self, *values: str) -> Histogram:
        """Return the histogram of these labels, the same one each time."""
        if len(values) != len(self._labels):
            raise ValueError(f"{self._name} has the labels {self._labels}")
        child = self._children.get(values)
        if child is None:
            child = Histogram(self._bounds) if self._trace_id is None else TracedHistogram(self._bounds, self._trace_id)
            self._children[values] = child
        return child

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """Yield the family without samples: a registry checks names with it."""
        yield self._family()

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Yield the family with all samples, for a scrape."""
        family = self._family()
        for values, child in list(self._children.items()):
            family.add_metric(values, child.buckets(self._les), sum_value=child.total)
        yield family

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._meaning, labels=self._labels)
