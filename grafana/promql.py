"""The expressions that every dashboard uses: rates, and quantiles of histograms."""

from __future__ import annotations

from collections.abc import Iterator

from grafana.panels import Query

OVER = "[$__rate_interval]"
# Their buckets name traces, while there are some (docs/tracing.md). Without a prefix, which is chosen on the dashboard.
TRACED = (
    "http_request_seconds",
    "payment_settle_seconds",
    "provider_call_seconds",
    "message_wait_seconds",
    "handler_seconds",
)


def rate(metric: str, where: str, *by: str) -> str:
    """Per second, added up over processes."""
    return f"{_sum(*by)}(rate({metric}{{{where}}}{OVER}))"


def ratio(metric: str, part: str, whole: str) -> str:
    """The share of one selection in another."""
    return f"{rate(metric, part)} / {rate(metric, whole)}"


def grown(metric: str, where: str, *by: str, over: str = OVER) -> str:
    """By how much a counter grew, added up over processes."""
    return f"{_sum(*by)}(increase({metric}{{{where}}}{over}))"


def mean(histogram: str, where: str, *by: str) -> str:
    """The mean of what a histogram saw."""
    return f"{rate(f'{histogram}_sum', where, *by)} / {rate(f'{histogram}_count', where, *by)}"


def quantile(share: float, histogram: str, where: str, *by: str) -> str:
    """The value that this share of what a histogram saw does not exceed."""
    return f"histogram_quantile({share:g}, {rate(f'{histogram}_bucket', where, 'le', *by)})"


def quantiles(histogram: str, where: str, *by: str, shares: tuple[float, ...] = (0.5, 0.99)) -> Iterator[Query]:
    """A line each, named by the labels and the share. The last one shows the traces: they are the same for all."""
    for share in shares:
        legend = " ".join([*(f"{{{{{label}}}}}" for label in by), f"p{share * 100:g}"])
        exemplars = histogram.endswith(TRACED) and share == shares[-1]
        yield Query(quantile(share, histogram, where, *by), legend, exemplars)


def _sum(*by: str) -> str:
    return f"sum by ({', '.join(by)}) " if by else "sum"
