"""The one sampler of all tabs: the state of the system with its rates, taken when a page asks, at most every two seconds.

Without a viewer there are no samples. Pages that ask at the same time share one.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from okane.console.outages import Outage, Outages
from okane.monitoring.observation import Observation
from okane.monitoring.picture import Picture, build_picture
from okane.redis.presence import PresentProcess

INTERVAL_S = 1.9  # each poll of a single tab, every two seconds, gets a new one
FORGET_S = 15.0  # after such a pause the next rates begin anew: an average over an hour would be no news
MAX_POINTS = 150  # five minutes of a tab that polls every two seconds
PATIENCE_S = 1.5  # for Postgres: a page shows the rest of its figures without it
FACTS_S = 5.0  # counts in Postgres are read this often at most

# All that the pages show of /metrics: asking for these alone costs a process 0.1 ms.
NAMES = (
    "okane_payments_accepted_total",
    "okane_payments_settled_total",
    "okane_payment_settle_seconds_bucket",
    "okane_provider_call_seconds_bucket",
    "okane_payment_retries_total",
    "okane_messages_published_total",
    "okane_messages_settled_total",
    "okane_in_flight_messages",
    "okane_provider_circuit_open",
    "okane_webhook_requests_total",
    "okane_webhook_in_flight",
    "process_cpu_seconds_total",
)


@dataclass(frozen=True, slots=True)
class Point:
    """The values of the charts at one sample. None where one could not be read."""

    at: datetime
    accepted_per_s: float | None
    settled_per_s: float | None
    waiting: int | None
    in_flight: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The state at one moment, with the samples before it. `has_rates` is False for the first one after a pause.

    `redis_away_since` and `postgres_away_since` are the times at which a page first missed them, None while they answer.
    """

    at: datetime
    observation: Observation
    picture: Picture
    has_rates: bool
    points: Sequence[Point]
    redis_away_since: datetime | None
    postgres_away_since: datetime | None


class Sampler:
    """Takes samples by `observe`, which gets the processes of the sample before."""

    def __init__(
        self,
        observe: Callable[[Sequence[PresentProcess]], Awaitable[Observation]],
        *,
        now: Callable[[], datetime],
        outages: Outages | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._observe = observe
        self._outages = outages or Outages.none(now, clock)
        self._now = now
        self._clock = clock
        self._sample: Sample | None = None
        self._until_s = 0.0
        self._points: deque[Point] = deque(maxlen=MAX_POINTS)
        self._running: asyncio.Task[Sample] | None = None

    async def current(self) -> Sample:
        """Return the newest sample; take one if it is older than `INTERVAL_S`."""
        if self._sample is not None and self._clock() < self._until_s:
            return self._sample
        if self._running is None:
            self._running = asyncio.create_task(self._take())
            self._running.add_done_callback(self._forget_task)
        return await asyncio.shield(self._running)  # a tab that leaves does not end the sample of the others

    async def aclose(self) -> None:
        """End a sample that is being taken."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    def _forget_task(self, task: asyncio.Task[Sample]) -> None:
        self._running = None
        if not task.cancelled():
            task.exception()  # the pages that waited have it; without any it would be logged as never retrieved

    async def _take(self) -> Sample:
        last = self._sample
        began_s = self._clock()
        after = await self._observe(() if last is None else last.observation.processes)
        waited_s = self._clock() - began_s
        before = None if last is None else last.observation
        has_rates = before is not None and 0 < after.at_s - before.at_s <= FORGET_S
        if before is None or not has_rates:
            before = replace(after, at_s=after.at_s - 1)  # no growth, and no division by zero
        picture = build_picture(before, after)
        at = self._now()
        self._points.append(_point(at, picture, has_rates=has_rates))
        self._sample = Sample(
            at=at,
            observation=after,
            picture=picture,
            has_rates=has_rates,
            points=tuple(self._points),
            redis_away_since=_since(self._outages.redis, waited_s, is_away=after.stats is None),
            postgres_away_since=_since(
                self._outages.postgres,
                waited_s,
                is_away=after.oldest_due is None and not after.is_postgres_heard,
                is_heard=after.is_postgres_heard,
            ),
        )
        # From the end: a sample that waits for a server that is away must not begin again at once.
        self._until_s = max(began_s, self._clock()) + INTERVAL_S
        return self._sample


def _point(at: datetime, picture: Picture, *, has_rates: bool) -> Point:
    return Point(
        at,
        picture.accepted_per_s if has_rates else None,
        picture.settled_per_s if has_rates else None,
        total_of(one.waiting for one in picture.lanes),
        total_of(one.pending for one in picture.lanes),
    )


def total_of(counts: Iterable[int | None]) -> int | None:
    """Return the sum, None if a count is missing."""
    found = list(counts)
    return None if any(one is None for one in found) else sum(one or 0 for one in found)


def _since(outage: Outage, waited_s: float, *, is_away: bool, is_heard: bool = True) -> datetime | None:
    """Return since when a server is away. A sample that has not heard of it leaves the state as other pages have noted it."""
    if is_away:
        return outage.notice(waited_s)
    if is_heard:
        outage.end()
    return outage.since
