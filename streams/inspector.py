"""The contents of a stream and its group: statistics in one round trip, and single messages by pages. Read only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from streams import scripts
from streams.connection import checked_client, redis_errors, translated, translating
from streams.entry import checked_id, is_outermost, timestamp_ms
from streams.group import Group
from streams.keys import Stream

_MOST = 1_000  # messages of a page: a longer one would hold the server
_BODY_BYTES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerStats:
    """One consumer on one lane. `idle_ms` is the time since it last tried to read."""

    name: str
    lane: str
    pending: int
    idle_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneStats:
    """One lane. `length` counts all entries, `pending` those that consumers have read, `depth` those still to read.

    `lag` is the server's own count of entries to read, None where the server has none (after a deletion, or in 6.2). With
    several `groups`, `length` counts the entries that any of them still has to ack, and `depth` is an upper bound while
    `lag` is None and there is something to read. `oldest_ms` is the creation of the oldest entry, by the server's clock.
    """

    lane: str
    length: int
    pending: int
    lag: int | None
    consumers: int
    last_id: str | None
    last_delivered_id: str | None
    oldest_ms: int | None
    groups: int = 1

    @property
    def depth(self) -> int:
        if self.groups > 1:
            if self.last_id is not None and self.last_delivered_id == self.last_id:
                return 0
            if self.lag is not None:
                return self.lag
        # Correct because acked entries are deleted. Negative when entries were deleted by hand, or acked between the two
        # counts.
        return max(0, self.length - self.pending)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStats:
    """Everything about one stream at `now_ms` (the server's clock, ms since the epoch, as are all times here)."""

    stream: str
    group: str
    now_ms: int
    lanes: tuple[LaneStats, ...]
    consumers: tuple[ConsumerStats, ...]
    delayed: int
    next_due_ms: int | None
    dead: int

    @property
    def depth(self) -> int:
        return sum(lane.depth for lane in self.lanes)

    @property
    def pending(self) -> int:
        return sum(lane.pending for lane in self.lanes)

    @property
    def oldest_ms(self) -> int | None:
        """The creation of the oldest entry of all lanes."""
        return min((lane.oldest_ms for lane in self.lanes if lane.oldest_ms is not None), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingEntry:
    """An entry that a consumer has read and not acked. `idle_ms` is the time since its last delivery or renewed lease. `body`
    is None if the entry was deleted meanwhile."""

    id: str
    lane: str
    consumer: str
    idle_ms: int
    deliveries: int
    body: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayedMessage:
    """A message that waits in the delayed set until `due_ms`. `attempt` is the one that it waits for, None if another program
    wrote the message. `body` is its beginning, up to 200 bytes."""

    due_ms: int
    lane: str
    attempt: int | None
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayedPage:
    """Some delayed messages, the next due first. `next` is a cursor for `delayed`, None at the end."""

    now_ms: int
    messages: tuple[DelayedMessage, ...]
    next: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundEntry:
    """The newest entry of a lane with a body. `pending` is None if no consumer has read it."""

    id: str
    pending: PendingEntry | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EntrySearch:
    """The result of a search for an entry. Not `complete`: the window has more entries than were read, and none of those."""

    found: FoundEntry | None
    complete: bool


class Inspector:
    """Reads the statistics of one stream and its group, and single messages."""

    def __init__(self, client: Redis, stream: Stream, *, group: str) -> None:
        self._group = Group(checked_client(client), stream, group)

    @translating
    async def stats(self) -> StreamStats:
        """Return a snapshot. Streams and groups that do not exist yet count as empty."""
        # Not a transaction: a full Redis before 7.2 refuses those, and that is when the numbers are wanted.
        client, stream, group = self._group.client, self._group.stream, self._group.name
        async with client.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.zcard(stream.delayed_key)
            pipe.zrange(stream.delayed_key, 0, 0, withscores=True)
            pipe.xlen(stream.dead_key)
            for key in stream.lane_keys:
                pipe.xinfo_stream(key)
                pipe.xinfo_groups(key)
                pipe.xinfo_consumers(key, group)
            replies = await pipe.execute(raise_on_error=False)
        now, delayed, head, dead, *about_lanes = (_none_if_missing(reply) for reply in replies)
        lanes = [about_lanes[at : at + 3] for at in range(0, len(about_lanes), 3)]
        named = list(zip(stream.lane_names, lanes, strict=True))
        return StreamStats(
            stream=stream.name,
            group=group,
            now_ms=now[0] * 1000 + now[1] // 1000,
            lanes=tuple(self._lane(name, info, groups) for name, (info, groups, _) in named),
            consumers=tuple(stats for name, (_, _, consumers) in named for stats in _consumers(name, consumers)),
            delayed=delayed or 0,
            next_due_ms=int(head[0][1]) if head else None,
            dead=dead or 0,
        )

    async def pending(self, lane: str, *, after: str | None = None, count: int = 100) -> Sequence[PendingEntry]:
        """Return pending entries of a lane, the oldest first: those behind the id `after`. A stream or group that does not
        exist has none. Raises ValueError for an unknown lane or a wrong id."""
        self._check_page(count)
        key = self._key(lane)
        if after is not None and is_outermost(checked_id(after), "last"):
            return ()
        return await self._pending(key, lane, "-" if after is None else f"({after}", "+", count)

    async def delayed(self, *, after: str | None = None, count: int = 100) -> DelayedPage:
        """Return delayed messages, the next due first. `after` is the `next` of the page before. Raises ValueError for a text
        that is no cursor."""
        self._check_page(count)
        from_ms, skip = (0, 0) if after is None else _delayed_cursor(after)
        now_ms, found = await scripts.list_delayed(
            self._group.client, self._group.stream, from_ms=from_ms, skip=skip, limit=count + 1, body_bytes=_BODY_BYTES
        )
        messages = [DelayedMessage(due_ms=due, lane=lane, attempt=n, body=body) for due, lane, n, body in found[:count]]
        cursor = None
        if len(found) > count:
            last_ms = messages[-1].due_ms
            of_last = sum(one.due_ms == last_ms for one in messages) + (skip if last_ms == from_ms else 0)
            cursor = f"{last_ms}-{of_last}"
        return DelayedPage(now_ms=now_ms, messages=tuple(messages), next=cursor)

    async def entry_of(self, body: bytes, lane: str, *, since_ms: int, until_ms: int, limit: int = 500) -> EntrySearch:
        """Find the newest entry of a lane with this body among those that were created between two times, of the server's
        clock. Reads the newest `limit` entries at most. Raises ValueError for an unknown lane."""
        key = self._key(lane)
        with redis_errors():
            found: Any = await self._group.client.xrevrange(
                key, max=max(until_ms, 0), min=max(since_ms, 0), count=limit + 1
            )
        entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]] = found or ()
        of_body = [entry_id.decode() for entry_id, fields in entries[:limit] if fields.get(b"b") == body]
        if not of_body:
            return EntrySearch(found=None, complete=len(entries) <= limit)
        pending = await self._pending(key, lane, of_body[0], of_body[0], 1)
        return EntrySearch(found=FoundEntry(id=of_body[0], pending=pending[0] if pending else None), complete=True)

    @translating
    async def _pending(self, key: str, lane: str, first: str, last: str, count: int) -> Sequence[PendingEntry]:
        client, group = self._group.client, self._group.name
        try:
            found: Any = await client.xpending_range(key, group, min=first, max=last, count=count)
        except ResponseError as error:
            return _none_if_missing(error) or ()
        async with client.pipeline(transaction=False) as pipe:
            for one in found:
                pipe.xrevrange(key, max=one["message_id"], min=one["message_id"])
            entries = await pipe.execute()
        return [
            PendingEntry(
                id=one["message_id"].decode(),
                lane=lane,
                consumer=one["consumer"].decode(),
                idle_ms=one["time_since_delivered"],
                deliveries=one["times_delivered"],
                body=entry[0][1].get(b"b", b"") if entry else None,
            )
            for one, entry in zip(found, entries, strict=True)
        ]

    def _key(self, lane: str) -> str:
        if lane not in self._group.stream.lane_names:
            raise ValueError(f"no lane {lane[:60]!r}: there are {', '.join(self._group.stream.lane_names)}")
        return self._group.stream.lane_key(lane)

    @staticmethod
    def _check_page(count: int) -> None:
        if not 1 <= count <= _MOST:
            raise ValueError(f"a page has 1 to {_MOST:,} messages: {count}")

    def _lane(self, name: str, info: Mapping[str, Any] | None, groups: Sequence[Mapping[str, Any]] | None) -> LaneStats:
        group = next((each for each in groups or () if each["name"] == self._group.name.encode()), None)
        first = info["first-entry"] if info else None
        return LaneStats(
            lane=name,
            length=info["length"] if info else 0,
            pending=group["pending"] if group else 0,
            lag=group.get("lag") if group else None,
            consumers=group["consumers"] if group else 0,
            last_id=info["last-generated-id"].decode() if info else None,
            last_delivered_id=group["last-delivered-id"].decode() if group else None,
            oldest_ms=timestamp_ms(first[0].decode()) if first else None,
            groups=info["groups"] if info else 0,
        )


def _delayed_cursor(text: str) -> tuple[int, int]:
    """Return the due time and the number of messages of that time that were shown."""
    due_ms, _, shown = checked_id(text).partition("-")
    return int(due_ms), min(int(shown), 2**31)


def _consumers(lane: str, consumers: Sequence[Mapping[str, Any]] | None) -> Iterator[ConsumerStats]:
    for each in consumers or ():
        yield ConsumerStats(name=each["name"].decode(), lane=lane, pending=each["pending"], idle_ms=each["idle"])


def _none_if_missing(reply: Any) -> Any:
    """Return the reply, or None for a key or group that does not exist. Raises any other error."""
    if isinstance(reply, ResponseError):
        if "no such key" in str(reply).lower() or "NOGROUP" in str(reply):
            return None
        raise translated(reply) from reply
    return reply
