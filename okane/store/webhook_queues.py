"""The endpoint queues of dispatchers: leases, results, and the deliveries that are due.

Guarantee: results under an epoch that is over write nothing. The place of a queue in the log moves in the statement that
writes the rows which it passes. Time is the database's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

from okane.store import sql_files
from okane.store.connect import application_name
from okane.store.prepared_statements import PreparedStatement
from okane.store.session import Session
from okane.store.sql_parameters import milliseconds
from okane.store.webhook_endpoints import ENDPOINT, WIDTH, Endpoint, read_endpoint

_LOADED = sql_files.load_statements("webhook_queues.sql")
SQL = {name: text.replace("{endpoint}", ENDPOINT) for name, text in _LOADED.items()}
BATCHED = {name: PreparedStatement.of(name, SQL[name]) for name in ("write", "due", "holds", "replay_page")}

SESSION = "dispatcher"  # its name in pg_stat_activity: dispatchers count one another by it
LEAVING = "dispatcher leaving"  # its name during the drain: it takes no queue any more, and must not count
WINDOW = 2_000  # events that one read of a replay looks at
MOST_HOLDS = 20_000  # of one queue: far more than it lets wait
MOST_EARLIER = 20  # failed attempts that a row keeps


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedQueue:
    """A queue under a lease. `taken_over`: its owner before let the lease expire. `has_waiting`: rows wait for a retry.

    `has_backlog`: the account has events behind `done_to`. `last`: the highest position of the log.
    """

    endpoint: Endpoint
    done_to: int
    epoch: int
    failures: int
    last_error: str | None
    taken_over: bool
    has_waiting: bool
    has_replays: bool
    has_backlog: bool
    last: int


@dataclass(frozen=True, slots=True)
class Share:
    """The queues to serve, those that have no owner (orphans: for a while), and the dispatchers that run (1 at least).

    `is_used`: some account has endpoints, perhaps without a URL. `now_s`: the database's clock, in seconds since the epoch.
    """

    queues: int
    free: int
    orphans: int
    dispatchers: int
    is_used: bool
    now_s: float


@dataclass(frozen=True, slots=True)
class Due:
    """A row that is due."""

    endpoint_id: UUID
    position: int
    attempts: int


@dataclass(frozen=True, slots=True)
class DueRows:
    """The rows that are due, and by endpoint the seconds until the next row that is not."""

    rows: Sequence[Due]
    next_s: Mapping[UUID, float]


@dataclass(frozen=True, slots=True)
class Hold:
    """A waiting row that holds back later events of its payment for `left_s`; None: until it was sent."""

    endpoint_id: UUID
    payment_id: UUID
    position: int
    left_s: float | None


@dataclass(frozen=True, slots=True)
class Replay:
    """A range of the log that is delivered again. `next`: the first position that is not done."""

    endpoint_id: UUID
    from_position: int
    to_position: int
    next: int
    only_failed: bool


@dataclass(frozen=True, slots=True)
class ReplayPage:
    """Some positions of a replay, and the position that the page has come to."""

    reached: int
    positions: Sequence[int]


@dataclass(frozen=True, slots=True)
class EndpointChange:
    """A failing endpoint that was reported or disabled."""

    endpoint_id: UUID
    account_id: str
    reason: str | float  # `gone` or `failing`; of a report the seconds since its first failure
    last_error: str | None


class ResultRow(Protocol):
    """The end of an attempt. Without `ms` it is none: the row only waits until later."""

    @property
    def position(self) -> int: ...
    @property
    def state(self) -> str: ...
    @property
    def attempts(self) -> int: ...
    @property
    def ended_at_s(self) -> float: ...
    @property
    def status(self) -> int | None: ...
    @property
    def ms(self) -> int | None: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def delay_s(self) -> float | None: ...


class ResultBatch(Protocol):
    """The results of one queue, and its state after them."""

    @property
    def results(self) -> Sequence[ResultRow]: ...
    @property
    def done_to(self) -> int: ...
    @property
    def failures(self) -> int: ...
    @property
    def succeeded(self) -> bool: ...
    @property
    def last_error(self) -> str | None: ...
    @property
    def replayed_to(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class QueueBatch:
    """A batch of one leased queue, and its replay as it was before, if it has one."""

    endpoint_id: UUID
    epoch: int
    batch: ResultBatch
    replay: Replay | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRules:
    """The length of leases, and when a failing endpoint is reported and disabled."""

    lease: timedelta = timedelta(seconds=10)
    orphaned: timedelta = timedelta(seconds=3)  # a queue so long without an owner is taken beyond the share
    silent: timedelta = timedelta(seconds=10)  # a dispatcher that ran nothing for so long does not count
    failing: tuple[timedelta, timedelta] = (timedelta(hours=1), timedelta(hours=24))
    disabled: timedelta = timedelta(days=5)


class WebhookQueueStore:
    """The queues of one dispatcher, which is called `owner`. Each method raises StoreUnavailable."""

    def __init__(
        self, url: str, *, owner: str, rules: LeaseRules | None = None, timeout: timedelta = timedelta(seconds=5)
    ) -> None:
        """`owner` must be new with every start: a lease belongs to one process."""
        self.owner = owner
        self.rules = rules or LeaseRules()
        self._leases = Session(url, name=SESSION, timeout=timeout)
        self._batches = Session(url, name="webhook results", timeout=timeout, index_only=True)
        self._reading = Session(url, name="webhook deliveries", timeout=timeout, index_only=True)

    async def aclose(self) -> None:
        """Close the connections."""
        for session in (self._leases, self._batches, self._reading):
            await session.aclose()

    # -- leases

    async def share(self) -> Share:
        """Return how many queues and dispatchers there are."""
        rules = self.rules
        parameters = {
            "orphaned_ms": milliseconds(rules.orphaned),
            "silent_ms": milliseconds(rules.silent),
            "session": application_name(SESSION),
        }
        return Share(*(await self._leases.fetch_repeatable(SQL["share"], parameters))[0])

    async def resign(self) -> None:
        """Count as a dispatcher no more: the share of the others grows, while this one ends what it has begun."""
        await self._leases.rename(LEAVING)

    async def lease(self, limit: int) -> Sequence[LeasedQueue]:
        """Lease up to `limit` queues that have no owner. If the answer is lost the owner may have more than it knows of."""
        parameters = {"owner": self.owner, "limit": limit, "lease_ms": milliseconds(self.rules.lease)}
        return [
            LeasedQueue(
                endpoint=read_endpoint(row),
                done_to=row[WIDTH],
                epoch=row[WIDTH + 1],
                failures=row[WIDTH + 2],
                last_error=row[WIDTH + 3],
                taken_over=row[WIDTH + 4],
                has_waiting=row[WIDTH + 5],
                has_replays=row[WIDTH + 6],
                has_backlog=row[WIDTH + 7],
                last=row[WIDTH + 8],
            )
            for row in await self._leases.fetch(SQL["lease"], parameters)
        ]

    async def renew(self, *, idle_to: int, idle: Iterable[UUID]) -> int:
        """Renew all leases of the owner; return their number.

        The place in the log of the `idle` queues moves to `idle_to`: nothing for them is open up to it.
        """
        parameters = {
            "owner": self.owner,
            "lease_ms": milliseconds(self.rules.lease),
            "idle_to": idle_to,
            "idle": list(idle),
        }
        return int((await self._leases.fetch_repeatable(SQL["renew"], parameters))[0][0])

    async def owned(self) -> Mapping[UUID, int]:
        """Return the epochs of all queues of the owner."""
        return dict(await self._leases.fetch_repeatable(SQL["owned"], {"owner": self.owner}))

    async def changed(self) -> Sequence[tuple[Endpoint, int]]:
        """Return the endpoints of the owner's queues that have changed since `confirm`, each with the queue's epoch."""
        found = await self._leases.fetch_repeatable(SQL["changed"], {"owner": self.owner})
        return [(read_endpoint(row), row[WIDTH]) for row in found]

    async def confirm(self, versions: Mapping[UUID, int]) -> None:
        """Write that the owner works by these versions of its endpoints."""
        parameters = {"owner": self.owner, "ids": list(versions), "versions": list(versions.values())}
        await self._leases.fetch_repeatable(SQL["confirm"], parameters)

    async def release(self, endpoint_ids: Iterable[UUID]) -> None:
        """End the leases of these queues; another dispatcher may take them at once."""
        await self._leases.fetch_repeatable(SQL["release"], {"owner": self.owner, "ids": list(endpoint_ids)})

    # -- results

    async def write(self, batches: Sequence[QueueBatch], now_s: float) -> set[UUID]:
        """Write results in one statement; return the queues that the owner still holds. May run twice."""
        rows = [(one.endpoint_id, row) for one in batches for row in one.batch.results]
        replays = [(one.replay, one.batch.replayed_to + 1) for one in batches if one.replay and one.batch.replayed_to]
        parameters: dict[str, Any] = {
            "owner": self.owner,
            "most_earlier": MOST_EARLIER,
            "queue_ids": [one.endpoint_id for one in batches],
            "epochs": [one.epoch for one in batches],
            "done_tos": [one.batch.done_to for one in batches],
            "failures": [one.batch.failures for one in batches],
            "succeeded": [one.batch.succeeded for one in batches],
            "last_errors": [one.batch.last_error for one in batches],
            "replay_ids": [replay.endpoint_id for replay, _ in replays],
            "replay_froms": [replay.from_position for replay, _ in replays],
            "replay_befores": [replay.next for replay, _ in replays],
            "replay_nexts": [after for _, after in replays],
            "row_ids": [endpoint_id for endpoint_id, _ in rows],
            "positions": [row.position for _, row in rows],
            "states": [row.state for _, row in rows],
            "attempts": [row.attempts for _, row in rows],
            "statuses": [row.status for _, row in rows],
            "ms": [row.ms for _, row in rows],
            "reasons": [row.reason for _, row in rows],
            "ages_ms": [round(1000 * max(now_s - row.ended_at_s, 0.0)) for _, row in rows],
            "delays_ms": [None if row.delay_s is None else round(1000 * row.delay_s) for _, row in rows],
        }
        return {row[0] for row in await self._batches.fetch(BATCHED["write"], parameters)}

    async def report_failing(self) -> Sequence[EndpointChange]:
        """Write the event of each endpoint that has failed for an hour, and for a day; return those."""
        first, second = self.rules.failing
        parameters = {"owner": self.owner, "first_ms": milliseconds(first), "second_ms": milliseconds(second)}
        return [EndpointChange(*row) for row in await self._leases.fetch(SQL["report_failing"], parameters)]

    async def disable(self, gone: Iterable[UUID]) -> Sequence[EndpointChange]:
        """Disable these endpoints, which are gone, and those that have failed for five days; return them."""
        parameters = {"owner": self.owner, "gone": list(gone), "after_ms": milliseconds(self.rules.disabled)}
        return [EndpointChange(*row) for row in await self._leases.fetch(SQL["disable"], parameters)]

    # -- deliveries

    async def accounts_between(self, after: int, up_to: int) -> Sequence[str]:
        """Return the accounts that have an event after one position and up to another."""
        parameters = {"after": after, "up_to": up_to}
        return [row[0] for row in await self._leases.fetch_repeatable(SQL["accounts_between"], parameters)]

    async def due(self, rooms: Mapping[UUID, int]) -> DueRows:
        """Return the rows that are due at each endpoint, up to its room."""
        parameters = {"ids": list(rooms), "rooms": list(rooms.values())}
        found = await self._reading.fetch_repeatable(BATCHED["due"], parameters)
        rows = [Due(id_, position, attempts) for id_, position, attempts, _ in found if position is not None]
        return DueRows(rows, {id_: next_ms / 1000 for id_, _, _, next_ms in found if next_ms is not None})

    async def holds(self, holds_s: Mapping[UUID, int]) -> Sequence[Hold]:
        """Return the rows that hold back later events, of endpoints with their `hold_s`."""
        parameters = {"ids": list(holds_s), "holds_s": list(holds_s.values()), "most": MOST_HOLDS}
        return [
            Hold(id_, payment_id, position, None if left_ms is None else left_ms / 1000)
            for id_, payment_id, position, left_ms in await self._reading.fetch_repeatable(BATCHED["holds"], parameters)
        ]

    async def replays(self, endpoint_ids: Iterable[UUID]) -> Sequence[Replay]:
        """Return the first replay of each of these endpoints that has one."""
        found = await self._reading.fetch_repeatable(SQL["replays"], {"ids": list(endpoint_ids)})
        return [Replay(*row) for row in found]

    async def replay_page(
        self, replay: Replay, endpoint: Endpoint, *, after: int, up_to: int, types: Sequence[str], limit: int
    ) -> ReplayPage:
        """Return the next positions of a replay, with `only_failed` those that are not delivered."""
        parameters = {
            "account_id": endpoint.account_id,
            "endpoint_id": endpoint.id,
            "after": after,
            "up_to": up_to,
            "types": list(types),
            "only_failed": replay.only_failed,
            "limit": limit,
            "window": WINDOW,
        }
        [(reached, positions)] = await self._reading.fetch_repeatable(BATCHED["replay_page"], parameters)
        return ReplayPage(reached, positions)

    async def end_replay(self, replay: Replay, *, epoch: int) -> None:
        """Remove a replay whose last position is done."""
        parameters = {
            "id": replay.endpoint_id,
            "from_position": replay.from_position,
            "owner": self.owner,
            "epoch": epoch,
        }
        await self._leases.fetch_repeatable(SQL["end_replay"], parameters)
