"""Counts and ages of events and endpoint queues, for scrapes and commands. Nearly free without endpoints: one small query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from uuid import UUID

from okane.metrics import ENDPOINT_STATES
from okane.store import sql_files
from okane.store.session import Session
from okane.store.webhook_partitions import POSITIONS

SQL = sql_files.load_statements("webhook_overview.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointState:
    """The endpoints in one state. `oldest` is the age of the first event that was not sent yet, `failing` the time since the
    first failure of the one that has failed for longest, `first` the first position that one of them still needs."""

    endpoints: int = 0
    unowned: int = 0  # enabled, and leased by no dispatcher
    backlog: int = 0
    oldest: timedelta = timedelta(0)
    failing: timedelta = timedelta(0)
    first: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSize:
    """The log with its deliveries: its first and last position, its bytes, and the time since the last event of the table
    partition that the queue furthest behind needs. None: that one is still being written, or no queue is behind."""

    first: int
    last: int
    size_bytes: int
    needed_from: int | None = None
    ended: timedelta | None = None

    def used_retention(self, keep: timedelta, max_bytes: int | None) -> float:
        """Return the share of the retention that the queue furthest behind has used: at 1 its events may be dropped."""
        if self.needed_from is None:
            return 0.0
        by_age = 0.0 if self.ended is None else self.ended / keep
        positions = max(1, self.last - self.first + 1)
        start = self.needed_from - self.needed_from % POSITIONS
        needed_bytes = self.size_bytes * (self.last - max(start, self.first) + 1) / positions
        return max(by_age, needed_bytes / max_bytes if max_bytes else 0.0)


NO_LOG = LogSize(first=0, last=0, size_bytes=0)
NO_ENDPOINTS = {state: EndpointState() for state in ENDPOINT_STATES}


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookOverview:
    """The state of events and endpoints at one moment. `used` is False if no endpoint was ever made."""

    used: bool = False
    outbox_changes: int = 0
    outbox_oldest: timedelta = timedelta(0)
    states: Mapping[str, EndpointState] = field(default_factory=lambda: NO_ENDPOINTS)
    log: LogSize = NO_LOG

    @property
    def unowned(self) -> int:
        """The number of enabled endpoints that no dispatcher has leased."""
        return sum(state.unowned for state in self.states.values())

    @property
    def failing(self) -> timedelta:
        """The time since the first failure of the enabled endpoint that has failed for longest."""
        return self.states["failing"].failing


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedEndpoint:
    """An endpoint of any account, for operators. `behind`: positions of the log, of all accounts, that it has yet to pass;
    `owner`: the dispatcher that has leased it."""

    account_id: str
    id: UUID
    url: str | None
    status: str
    disabled_reason: str | None
    failing_since: datetime | None
    last_error: str | None
    behind: int
    owner: str | None


async def list_endpoints(session: Session, limit: int) -> Sequence[ListedEndpoint]:
    """Return up to `limit` endpoints of every account, those in trouble first."""
    names = [one.name for one in fields(ListedEndpoint)]
    rows = await session.fetch_repeatable(SQL["endpoints"], {"limit": limit})
    return [ListedEndpoint(**dict(zip(names, row, strict=True))) for row in rows]


async def is_used(session: Session) -> bool:
    """Tell if an endpoint was ever made."""
    return bool((await session.fetch_repeatable(SQL["used"]))[0][0])


async def read_webhooks(session: Session) -> WebhookOverview:
    """Return the state now. The session reads in the order of indexes (`in_order`)."""
    [[rows, oldest_s]] = await session.fetch_repeatable(SQL["outbox"])
    states = dict(NO_ENDPOINTS)
    for state, endpoints, unowned, backlog, age_s, failing_s, first in await session.fetch_repeatable(SQL["queues"]):
        states[state] = EndpointState(
            endpoints=endpoints,
            unowned=unowned,
            backlog=backlog,
            oldest=timedelta(seconds=age_s),
            failing=timedelta(seconds=failing_s),
            first=first,
        )
    return WebhookOverview(
        used=True,
        outbox_changes=rows,
        outbox_oldest=timedelta(seconds=oldest_s),
        states=states,
        log=await _log_size(session, states),
    )


async def _log_size(session: Session, states: Mapping[str, EndpointState]) -> LogSize:
    [[first, last, size_bytes]] = await session.fetch_repeatable(SQL["log"])
    needed = [state.first for state in states.values() if state.first is not None]
    if not needed:
        return LogSize(first=first or 0, last=last, size_bytes=size_bytes)
    end = min(needed) - min(needed) % POSITIONS + POSITIONS - 1
    ended = await session.fetch_repeatable(SQL["ended"], {"last": end})
    return LogSize(
        first=first or 0,
        last=last,
        size_bytes=size_bytes,
        needed_from=min(needed),
        ended=timedelta(seconds=ended[0][0]) if ended else None,
    )
