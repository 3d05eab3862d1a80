"""The expressions that every dashboard uses: rates, and quantiles of histograms."""

from __future__ import annotations

from collections.abc import Iterator

from grafana.panels import Query

OVER = "[$__rate_interval]"
# Histograms with exemplars (docs/tracing.md), without the prefix, which is a variable of the dashboard.
TRACED = (
    "http_request_seconds",
    "payment_settle_seconds",
    "provider_call_seconds",
    "message_wait_seconds",
    "handler_seconds",
)


def rate(metric: str, where: str, *by: str) -> str:
    """Return the rate per second, summed over processes."""
    return f"{_sum(*by)}(rate({metric}{{{where}}}{OVER}))"


def ratio(metric: str, part: str, whole: str) -> str:
    """Return the share of one selection in another."""
    return f"{rate(metric, part)} / {rate(metric, whole)}"


def increase(metric: str, where: str, *by: str, over: str = OVER) -> str:
    """Return the increase of a counter, summed over processes."""
    return f"{_sum(*by)}(increase({metric}{{{where}}}{over}))"


def waiting(status: str, where: str) -> str:
    """Return the number of payments, captures, voids and refunds in this status."""
    which = f'{where},status="{status}"'
    operations = f"sum(max by (kind) (okane_operations_waiting{{{which}}}))"
    return f"max(okane_payments_waiting{{{which}}}) + ({operations} or vector(0))"


def mean(histogram: str, where: str, *by: str) -> str:
    """Return the mean of the observations of a histogram."""
    return f"{rate(f'{histogram}_sum', where, *by)} / {rate(f'{histogram}_count', where, *by)}"


def quantile(share: float, histogram: str, where: str, *by: str) -> str:
    """Return the quantile of the observations of a histogram."""
    return f"histogram_quantile({share:g}, {rate(f'{histogram}_bucket', where, 'le', *by)})"


def quantiles(histogram: str, where: str, *by: str, shares: tuple[float, ...] = (0.5, 0.99)) -> Iterator[Query]:
    """Yield a line for each share, named by its labels and the share. Only the last has exemplars: all show the same."""
    for share in shares:
        legend = " ".join([*(f"{{{{{label}}}}}" for label in by), f"p{share * 100:g}"])
        exemplars = histogram.endswith(TRACED) and share == shares[-1]
        yield Query(quantile(share, histogram, where, *by), legend, exemplars)


def _sum(*by: str) -> str:
    return f"sum by ({', '.join(by)}) " if by else "sum"
