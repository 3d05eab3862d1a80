"""What processes say at /metrics, and what happened between two looks at it: rates and quantiles over all of them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

PATIENCE_S = 1.0  # a process that takes longer does not answer

Labels = frozenset[tuple[str, str]]
Samples = Mapping[tuple[str, Labels], float]


async def scrape(http: aiohttp.ClientSession, address: str) -> Samples | None:
    """All samples of the process at `host:port`, None if it does not answer."""
    try:
        timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
        async with http.get(f"http://{address}/metrics", timeout=timeout) as response:
            return parsed(await response.text())
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None


def parsed(text: str) -> Samples:
    """The samples of an answer of /metrics. Raises ValueError for what is none."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """What happened from one look at some processes to the next, `seconds` later."""

    before: Sequence[Samples]  # of those that answered both times, in the same order
    after: Sequence[Samples]
    seconds: float

    def rate(self, name: str, **labels: str) -> float:
        """By how much a counter grew per second."""
        return sum(self._grown(name, labels).values()) / self.seconds

    def quantile(self, share: float, name: str, **labels: str) -> float | None:
        """In seconds, from a histogram's buckets; None when it saw nothing."""
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
                    grown[found] += value - was if value >= was else value  # it was started again: from 0
        return grown


def quantile(share: float, buckets: Sequence[tuple[float, float]]) -> float | None:
    """From cumulative counts by upper bound, in a straight line within a bucket, as Prometheus does it."""
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


def value(samples: Samples, name: str) -> float:
    """A metric's value in one process, added up over its labels."""
    return sum(each for (found, _), each in samples.items() if found == name)


def both(before: Mapping[str, Samples | None], after: Mapping[str, Samples | None], *, seconds: float) -> Between:
    """What happened at the addresses that answered both times."""
    names = [one for one in after if after[one] is not None and before.get(one) is not None]
    return Between(before=_of(before, names), after=_of(after, names), seconds=seconds)


def _of(samples: Mapping[str, Samples | None], names: Iterable[str]) -> Sequence[Samples]:
    return [one for name in names if (one := samples[name]) is not None]
