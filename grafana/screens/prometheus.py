"""The answers of a Prometheus over a time span: series on one grid of moments."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

POINTS = 250  # over the width of a panel, as Grafana queries for a panel of that width
_SCRAPES_IN_A_RATE = 4  # Grafana's $__rate_interval


class QueryError(Exception):
    """Prometheus did not answer, or refused the query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The time that is drawn, in Unix seconds, and how often Prometheus scrapes."""

    from_s: float
    to_s: float
    interval_s: float = 15

    @property
    def step_s(self) -> float:
        return max(self.interval_s, math.ceil((self.to_s - self.from_s) / POINTS))

    @property
    def rate_s(self) -> float:
        """The range of a rate, as Grafana chooses it."""
        return max(_SCRAPES_IN_A_RATE * self.interval_s, self.step_s + self.interval_s)

    @property
    def moments(self) -> Sequence[float]:
        """The grid, on whole steps."""
        first = math.ceil(self.from_s / self.step_s)
        return [number * self.step_s for number in range(first, math.floor(self.to_s / self.step_s) + 1)]


@dataclass(frozen=True, slots=True)
class Series:
    """Labels, and a value for each moment of the span: NaN where there is none."""

    labels: Mapping[str, str]
    values: Sequence[float]

    @property
    def points(self) -> int:
        return sum(map(math.isfinite, self.values))

    @property
    def last(self) -> float:
        """The last value that is a number, NaN without any."""
        return next((value for value in reversed(self.values) if math.isfinite(value)), math.nan)


class Prometheus:
    """A client of the HTTP API of one server."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self._url = url.rstrip("/")
        self._http = http

    async def over(self, span: Span, query: str) -> list[Series]:
        """Return the series of a query over the span, without those that have no number."""
        moments = span.moments
        found = await self._get("query_range", query=query, start=moments[0], end=moments[-1], step=span.step_s)
        series = [_on_grid(one, span) for one in found["result"]]
        return [one for one in series if one.points]

    async def at(self, moment_s: float, query: str) -> list[Series]:
        """Return the series of a query at one moment."""
        found = await self._get("query", query=query, time=moment_s)
        return [Series(one["metric"], [float(one["value"][1])]) for one in found["result"]]

    async def label_values(self, selector: str, label: str, span: Span) -> list[str]:
        names: list[str] = await self._get(
            f"label/{label}/values", start=span.from_s, end=span.to_s, **{"match[]": selector}
        )
        return names

    async def _get(self, path: str, **parameters: str | float) -> Any:
        texts = {name: str(value) for name, value in parameters.items()}
        try:
            async with self._http.get(f"{self._url}/api/v1/{path}", params=texts) as response:
                answer = json.loads(await response.text())
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise QueryError(f"{self._url} does not answer like a Prometheus: {error}") from error
        if answer["status"] != "success":
            raise QueryError(f"{answer['error']}: {texts}")
        return answer["data"]


def _on_grid(found: Mapping[str, Any], span: Span) -> Series:
    there = {round(at / span.step_s): float(value) for at, value in found["values"]}
    values = [there.get(round(at / span.step_s), math.nan) for at in span.moments]
    return Series(found["metric"], [value if math.isfinite(value) else math.nan for value in values])
