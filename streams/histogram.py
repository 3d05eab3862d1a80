"""A histogram for the hot path: what prometheus_client's does in microseconds, with its locks and checks, in a fraction.

For one thread that observes. A scrape from another may miss what is being observed at that moment; it will be in the next.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


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


class Histograms(Collector):
    """A family of histograms with the same name. `bounds` are the upper bounds of the buckets, without infinity."""

    def __init__(self, name: str, meaning: str, labels: Sequence[str], *, bounds: Sequence[float]) -> None:
        self._name = name
        self._meaning = meaning
        self._labels = tuple(labels)
        self._bounds = tuple(bounds)
        self._les = [*(f"{bound:g}" if bound >= 1e6 else repr(float(bound)) for bound in bounds), "+Inf"]
        self._children: dict[tuple[str, ...], Histogram] = {}

    def labels(self, *values: str) -> Histogram:
        """The histogram of these labels; the same one each time."""
        if len(values) != len(self._labels):
            raise ValueError(f"{self._name} has the labels {self._labels}")
        return self._children.setdefault(values, Histogram(self._bounds))

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """What a registry asks for, to keep names apart."""
        yield self._family()

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """All of them, for a scrape."""
        family = self._family()
        for values, child in list(self._children.items()):
            buckets = list(zip(self._les, accumulate(child.counts), strict=True))
            family.add_metric(values, buckets, sum_value=child.total)
        yield family

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._meaning, labels=self._labels)
