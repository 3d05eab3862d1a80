"""Statistics of a stream and its group: lengths, pending entries, consumers and ages. Read only, in one round trip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from streams.connection import checked_client, translated, translating
from streams.entry import timestamp_ms
from streams.group import Group
from streams.keys import Stream


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


class Inspector:
    """Reads the statistics of one stream and its group."""

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
