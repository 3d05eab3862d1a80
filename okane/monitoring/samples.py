"""Samples of /metrics, and the rates and quantiles between two scrapes of several processes."""

from __future__ import annotations

import functools
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import aiohttp

TIMEOUT_S = 1.0

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_LABELS = re.compile(r'(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\]|\\.)*"(?:,|$))*')
_ESCAPED = re.compile(r"\\(.)")

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
    """Parse the text format of Prometheus. Raises ValueError.

    `prometheus_client` reads families with their types and exemplars, and takes ten times as long: that was most of what an
    open overview cost.
    """
    samples = {}
    for line in text.split("\n"):
        if not line or line.startswith("#"):
            continue
        name, brace, rest = line.partition("{")
        if brace:
            labels, brace, rest = rest.rpartition("}")
            if not brace:
                raise ValueError(f"no sample: {line[:80]!r}")
            values = rest.split()
        else:
            labels, (name, *values) = "", line.split()
        if not _NAME.fullmatch(name) or len(values) not in (1, 2):  # a time may follow
            raise ValueError(f"no sample: {line[:80]!r}")
        samples[name, _parse_labels(labels)] = float(values[0])
    return samples


@functools.lru_cache(maxsize=10_000)  # each scrape has the labels of the one before
def _parse_labels(text: str) -> Labels:
    """Return the labels between the braces of a sample."""
    if not _LABELS.fullmatch(text):
        raise ValueError(f"no labels: {text[:80]!r}")
    return frozenset((name, _ESCAPED.sub(_unescape, value)) for name, value in _LABEL.findall(text))


def _unescape(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1] if match[1] in '"\\' else match[0]


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
