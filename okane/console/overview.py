"""The overview: is money moving."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from okane.console import charts
from okane.console.rendering import render_sampled
from okane.console.sampler import Sample, Sampler, total_of
from okane.payment import Status

LATE_S = 30.0  # a payment that has been due for longer waits for something
_WAITING = (
    Status.FAILED_RETRYABLE,
    Status.UNKNOWN,
    Status.REQUIRES_ACTION,
    Status.SUBMITTED,
    Status.AUTHORIZED,
    Status.NEEDS_REVIEW,
)


class Verdict(enum.StrEnum):
    """The answer to "is money moving", the most urgent one first."""

    POSTGRES_AWAY = "postgres_away"
    REDIS_AWAY = "redis_away"
    NO_WORKER = "no_worker"
    LATE = "late"
    MOVING = "moving"
    IDLE = "idle"


def judge(sample: Sample) -> Verdict:
    """Return the verdict about a sample."""
    picture = sample.picture
    if sample.postgres_away_since or picture.oldest_due_s is None:
        return Verdict.POSTGRES_AWAY
    if sample.observation.stats is None:
        return Verdict.REDIS_AWAY
    if not any(one.role == "worker" and one.alive for one in sample.observation.processes):
        return Verdict.NO_WORKER
    if picture.oldest_due_s > LATE_S:
        return Verdict.LATE
    is_moving = picture.accepted_per_s > 0 or picture.settled_per_s > 0 or bool(total_of_pending(sample))
    return Verdict.MOVING if is_moving else Verdict.IDLE


def total_of_pending(sample: Sample) -> int | None:
    """Return the entries in flight, None without Redis."""
    return total_of(one.pending for one in sample.picture.lanes)


class OverviewScreen:
    """The page and its live region."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    async def show(self, request: web.Request) -> web.Response:
        """`GET /`"""
        sample = await self._sampler.current()
        return render_sampled(request, "overview.html", "overview_part.html", sample, lambda: _context(sample))


def _context(sample: Sample) -> Mapping[str, Any]:
    points, picture, waiting = sample.points, sample.picture, sample.observation.waiting
    return {
        "sample": sample,
        "picture": picture,
        "verdict": judge(sample).value,
        "alive": sum(one.state == "up" for one in picture.processes),
        "waiting": total_of(one.waiting for one in picture.lanes),
        "in_flight": total_of_pending(sample),
        "operations_in_review": sample.observation.operations_in_review,
        "disputes": sample.observation.disputes,
        "off_path": None if waiting is None else [(one.value, waiting.get(one, 0)) for one in _WAITING],
        "charts": {
            "accepted": charts.draw([one.accepted_per_s for one in points]),
            "settled": charts.draw([one.settled_per_s for one in points]),
            "waiting": charts.draw([one.waiting for one in points]),
            "in_flight": charts.draw([one.in_flight for one in points]),
        },
        "minutes": (points[-1].at - points[0].at).total_seconds() / 60,
    }
