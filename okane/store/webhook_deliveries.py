"""The deliveries of events as their account sees them: read, repeated one by one, and repeated by range.

A dispatcher sends what is written here, from the endpoint's queue on. Nothing here moves the queue's place in the log.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args
from uuid import UUID

from okane.store import sql_files
from okane.store.fair_sessions import FairSessions
from okane.store.session import Session
from okane.store.webhook_events import FARTHEST, LoggedEvent

CONNECTIONS = 2  # of one process; one account uses one of them
MAX_RECOVERIES = 8  # of one endpoint at a time
MAX_REDELIVERED = 20  # events that one poll takes
WINDOW = 100_000  # events of an account that each end of a range is looked for in: a tenth of a second
MAX_COUNTED = 10_000  # events of a range
MAX_LOOKED = 10_000  # deliveries that one page of some states is looked for in
# `at` follows the positions but for changes that waited for a lock, or for the first sequencing after an outage.
DISORDER = timedelta(hours=1)

SQL = sql_files.load_statements("webhook_deliveries.sql")

DeliveryState = Literal["delivered", "waiting", "given_up"]
_STATES: Collection[DeliveryState] = get_args(DeliveryState)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event at one endpoint. `earlier`: the failed attempts before the last one, as the dispatcher wrote them."""

    endpoint_id: UUID
    position: int
    state: DeliveryState
    attempts: int
    status: int | None
    ms: int | None
    reason: str | None
    at: datetime
    next_at: datetime | None
    earlier: Sequence[Mapping[str, Any]] | None


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """Deliveries of one endpoint with their events, newest first. `reached`: the next page is before it; None at the end."""

    found: Sequence[tuple[LoggedEvent, Delivery]]
    reached: int | None


@dataclass(frozen=True, slots=True)
class Redelivered:
    """The positions that were due for the reader of an endpoint, and when they were read."""

    positions: tuple[int, ...]
    at: datetime


_EVENT_WIDTH = len(dataclasses.fields(LoggedEvent))
_FIELDS = [field.name for field in dataclasses.fields(Delivery)]


class WebhookDeliveryStore:
    """The deliveries in one database. Each method raises StoreUnavailable, or AccountBusy. Time is the database's."""

    def __init__(self, url: str, *, timeout: timedelta = timedelta(seconds=5)) -> None:
        sessions = [Session(url, name="deliveries", timeout=timeout, in_order=True) for _ in range(CONNECTIONS)]
        self._sessions = FairSessions(sessions)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._sessions.aclose()

    async def of_event(self, account_id: str, position: int) -> Sequence[Delivery]:
        """Return the deliveries of the event at this position, at each endpoint that the account has or had."""
        async with self._sessions.lend(account_id) as session:
            found = await session.fetch_repeatable(SQL["of_event"], {"account_id": account_id, "position": position})
        return [Delivery(**dict(zip(_FIELDS, row, strict=True))) for row in found]

    async def of_endpoint(
        self,
        account_id: str,
        endpoint_id: UUID,
        *,
        before: int = FARTHEST,
        limit: int,
        states: Collection[DeliveryState] = (),
    ) -> DeliveryPage | None:
        """Return deliveries of an endpoint before a position, newest first; None if the account has no such endpoint.

        With `states` a page looks at `MAX_LOOKED` deliveries at most: it may be short or empty although there are more.
        """
        window = MAX_LOOKED if states else limit + 1
        parameters = {
            "account_id": account_id,
            "id": endpoint_id,
            "before": before,
            "states": list(states or _STATES),
            "most": limit + 1,
            "window": window,
        }
        async with self._sessions.lend(account_id) as session:
            rows = await session.fetch_repeatable(SQL["of_endpoint"], parameters)
        if not rows:
            return None
        looked, reached = rows[0][:2]
        found = [_dated(row[2:]) for row in rows if row[2] is not None]
        found.sort(key=lambda one: one[1].position, reverse=True)
        if len(found) > limit:
            return DeliveryPage(found[:limit], found[limit - 1][1].position)
        return DeliveryPage(found, reached if looked == window else None)

    async def redeliver(self, account_id: str, endpoint_id: UUID, position: int) -> Delivery | None:
        """Make the event at this position due at an endpoint, delivered or not; None if the account has no such endpoint.

        A request that is in flight at this moment ends as it would have, and may be the last one.
        """
        parameters = {"account_id": account_id, "id": endpoint_id, "position": position}
        async with self._sessions.lend(account_id) as session:
            found = await session.fetch(SQL["redeliver"], parameters)
        return Delivery(**dict(zip(_FIELDS, found[0], strict=True))) if found else None

    async def redelivered(self, account_id: str, endpoint_id: UUID) -> Redelivered | None:
        """Return what is due at an endpoint without a URL, None if nothing is. It stays due until it is confirmed."""
        parameters = {"account_id": account_id, "id": endpoint_id, "most": MAX_REDELIVERED}
        async with self._sessions.lend(account_id) as session:
            found = await session.fetch_repeatable(SQL["redelivered"], parameters)
        return Redelivered(tuple(sorted(row[0] for row in found)), found[0][1]) if found else None

    async def confirm_redelivered(self, account_id: str, endpoint_id: UUID, read: Redelivered) -> None:
        """Mark as delivered what the reader of an endpoint without a URL has read."""
        parameters = {
            "account_id": account_id,
            "id": endpoint_id,
            "positions": list(read.positions),
            "read_at": read.at,
        }
        async with self._sessions.lend(account_id) as session:
            await session.fetch_repeatable(SQL["confirm_redelivered"], parameters)

    async def range_between(self, account_id: str, since: datetime, until: datetime | None) -> tuple[int, int] | None:
        """Return the first and the last position of the account's events of this time (`until` exclusive), None without any.

        Events between the two may be of other times if they were sequenced together. For an account with more than `WINDOW`
        events in an hour the range may be longer than the time.
        """
        async with self._sessions.lend(account_id) as session:
            first = await self._first_position(session, _shifted(since, -DISORDER))
            last = None if until is None else await self._first_position(session, _shifted(until, DISORDER))
            parameters = {
                "account_id": account_id,
                "first": first or 0,
                "last": last or FARTHEST,
                "window": WINDOW,
                "since": since,
                "until": until or "infinity",
            }
            [row] = await session.fetch_repeatable(SQL["range"], parameters)
        return None if row[0] is None else (row[0], row[1])

    async def _first_position(self, session: Session, moment: datetime) -> int | None:
        """Return about the first position from a moment on, by bisection over the log; None if there is none."""
        [(low, high)] = await session.fetch_repeatable(SQL["ends"])
        if low is None:
            return None
        end = high + 1
        high = end
        while low < high:
            middle = (low + high) // 2
            found = await session.fetch_repeatable(SQL["at"], {"position": middle})
            if found and found[0][0] < moment:
                low = middle + 1
            else:
                high = middle
        return low if low < end else None

    async def count_between(self, account_id: str, endpoint_id: UUID, *, first: int, last: int) -> int:
        """Return how many events of an endpoint's types lie in a range of positions, of its first `MAX_COUNTED` events."""
        parameters = {"account_id": account_id, "id": endpoint_id, "first": first, "last": last, "most": MAX_COUNTED}
        async with self._sessions.lend(account_id) as session:
            return int((await session.fetch_repeatable(SQL["count"], parameters))[0][0])

    async def recover(self, account_id: str, endpoint_id: UUID, *, first: int, last: int, only_failed: bool) -> bool:
        """Deliver a range of positions again, with `only_failed` without those that are delivered.

        Return False if the endpoint has its limit of recoveries. One of a range that begins at the same event begins anew.
        """
        parameters = {
            "account_id": account_id,
            "id": endpoint_id,
            "first": first,
            "last": last,
            "only_failed": only_failed,
            "most": MAX_RECOVERIES,
        }
        async with self._sessions.lend(account_id) as session:
            return bool(await session.fetch(SQL["recover"], parameters))


def _dated(row: Sequence[Any]) -> tuple[LoggedEvent, Delivery]:
    return LoggedEvent(*row[:_EVENT_WIDTH]), Delivery(**dict(zip(_FIELDS, row[_EVENT_WIDTH:], strict=True)))


def _shifted(moment: datetime, by: timedelta) -> datetime:
    """Return the moment moved, or the first or last one that there is."""
    try:
        return moment + by
    except OverflowError:
        return (datetime.max if by > timedelta() else datetime.min).replace(tzinfo=UTC)
