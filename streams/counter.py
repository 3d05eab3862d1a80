"""A counter for the hot path, without the locks and checks of prometheus_client, which cost ten times the addition.

One thread counts. A scrape from another thread may miss the current addition; the next scrape has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector


class Counter:
    """The counter of one set of labels."""

    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total = 0

    def inc(self, count: int = 1) -> None:
        """Count so many, which must not be negative."""
        self.total += count


class Counters(Collector):
    """A family of counters with the same name, which ends in `_total` when it is scraped."""

    def __init__(self, name: str, meaning: str, labels: Sequence[str], *, registry: CollectorRegistry) -> None:
        self._name = name
        self._meaning = meaning
        self._labels = tuple(labels)
        self._children: dict[tuple[str, ...], Counter] = {}
        registry.register(self)

    def labels(self, *values: str) -> Counter:
        """Return the counter of these labels, the same one each time."""
        if len(values) != len(self._labels):
            raise ValueError(f"{self._name} has the labels {self._labels}")
        return self._children.setdefault(values, Counter())

    def describe(self) -> Iterable[CounterMetricFamily]:
        """Yield the family without samples: a registry checks names with it."""
        yield self._family()

    def collect(self) -> Iterable[CounterMetricFamily]:
        """Yield the family with all samples, for a scrape."""
        family = self._family()
        for values, child in list(self._children.items()):
            family.add_metric(values, child.total)
        yield family

    def _family(self) -> CounterMetricFamily:
        return CounterMetricFamily(self._name, self._meaning, labels=self._labels)
