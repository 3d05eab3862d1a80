"""Samples of /metrics, and the rates and quantiles between two scrapes of several processes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_S = 1.0

Labels = frozenset[tuple[str, str]]
Samples = Mapping[tuple[str, Labels], float]


async def scrape(http: aiohttp.ClientSession, address: str, names: Sequence[str] = ()) -> Samples | None:
    """Return all samples of the process at `host:port`, or those of these names; None if it does not answer in time."""
    try:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        parameters = [("name[]", name) for name in names]
        async with http.get(f"http://{address}/metrics", params=parameters, timeout=timeout) as response:
            return parse_samples(await response.text())
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None


def parse_samples(text: str) -> Samples:
    """Parse the text format of Prometheus. Raises ValueError."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleDelta:
    """The growth of the samples of some processes in `seconds`."""

    before: Sequence[Samples]  # of the same processes in the same order
    after: Sequence[Samples]
    seconds: float

    def rate(self, name: str, **labels: str) -> float:
        """Return the growth of a counter per second."""
        return sum(self._grown(name, labels).values()) / self.seconds

    def quantile(self, share: float, name: str, **labels: str) -> float | None:
        """Return a quantile of a histogram, in its unit; None when nothing was observed."""
        buckets: dict[float, float] = defaultdict(float)
        for found, count in self._grown(f"{name}_bucket", labels).items():
            buckets[float(dict(found)["le"])] += count
        return quantile(share, sorted(buckets.items()))

    def _grown(self, name: str, labels: Mapping[str, str]) -> Mapping[Labels, float]:
        wanted = frozenset(labels.items())
        grown: dict[Labels, float] = defaultdict(float)
        for before, after in zip(self.before, self.after, strict=True):
            for (each, found), value in after.items():
                if each == name and wanted <= found:
                    was = before.get((each, found), 0.0)
                    grown[found] += value - was if value >= was else value  # a restarted process counts from 0
        return grown


def quantile(share: float, buckets: Sequence[tuple[float, float]]) -> float | None:
    """Return a quantile of cumulative counts by upper bound, interpolated within a bucket as Prometheus does."""
    total = buckets[-1][1] if buckets else 0.0
    if total == 0:
        return None
    rank, lower, below = share * total, 0.0, 0.0
    for bound, count in buckets:
        if count >= rank:
            inside = count - below
            return lower if math.isinf(bound) or not inside else lower + (bound - lower) * (rank - below) / inside
        lower, below = bound, count
    return lower


def total(samples: Samples, name: str) -> float:
    """Return the sum of a metric over its labels."""
    return sum(each for (found, _), each in samples.items() if found == name)


def delta(before: Mapping[str, Samples | None], after: Mapping[str, Samples | None], *, seconds: float) -> SampleDelta:
    """Return the growth at the addresses that answered both times."""
    names = [one for one in after if after[one] is not None and before.get(one) is not None]
    return SampleDelta(before=_of(before, names), after=_of(after, names), seconds=seconds)


def _of(samples: Mapping[str, Samples | None], names: Iterable[str]) -> Sequence[Samples]:
    return [one for name in names if (one := samples[name]) is not None]
