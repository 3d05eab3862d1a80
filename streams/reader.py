"""Reads new messages for a consumer, lanes by weight, at once or waiting for the first.

Guarantees: it reads no more messages than it was given slots for, and no lane starves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from streams import scripts
from streams.clock import Clock, milliseconds
from streams.connection import redis_errors, translated, translating
from streams.entry import flatten, timestamp_ms, to_message
from streams.errors import GroupLost, StreamError
from streams.group import Group
from streams.lanes import Rotation
from streams.lost_deliveries import LostDeliveries
from streams.message import Message


@dataclass(frozen=True, slots=True)
class ReadResult:
    """The messages of one read. The `error` of one lane does not take back what the other lanes gave."""

    messages: Sequence[Message]
    error: StreamError | None = None


class Reader:
    """Reads for one consumer of the group."""

    def __init__(self, group: Group, *, lost: LostDeliveries, clock: Clock) -> None:
        self._group = group
        self._lost = lost
        self._clock = clock
        # Heaviest first: these get the slots that other lanes leave.
        self._lanes = sorted(group.stream.lanes, key=lambda lane: -lane.weight)
        self._keys = [group.stream.lane_key(lane.name) for lane in self._lanes]
        self._name_of = {key.encode(): lane.name for key, lane in zip(self._keys, self._lanes, strict=True)}
        self._rotation = Rotation([lane.weight for lane in self._lanes])
        self._server_ahead_s = 0.0
        self._entry_bytes = lost.window.max_bytes  # the average of the last read; before it, the largest estimate
        self.was_cut = False  # the byte limit ended the last read: there is more

    @translating
    async def read_available(self, limit: int, *, capacity: int, held: Mapping[str, int]) -> ReadResult:
        """Read up to `limit` messages without waiting. `held` is how many of the `capacity` slots each lane holds."""
        holds = [held.get(lane.name, 0) for lane in self._lanes]
        quotas = self._rotation.quotas(capacity, holds)
        shares = [min(share, quota) for share, quota in zip(self._rotation.shares(limit), quotas, strict=True)]
        # The lane that holds least for its weight is the first to get the slots that others leave.
        order = sorted(range(len(self._lanes)), key=lambda at: holds[at] / self._lanes[at].weight)
        window, sent_s = self._lost.window, self._clock.monotonic()
        with self._lost.receiving():
            now_ms, taken, trouble, size = await scripts.read(
                self._group,
                [self._keys[at] for at in order],
                limit=limit,
                max_bytes=window.max_bytes,
                entry_bytes=self._entry_bytes,
                shares=[shares[at] for at in order],
            )
        now_s = self._clock.monotonic()
        self._server_ahead_s = now_ms / 1000 - now_s
        self.was_cut = 2 * size > window.max_bytes
        window.record(size, now_s - sent_s)
        messages = [
            to_message(entry_id, fields, lane=self._lanes[at].name)
            for at, entries in zip(order, taken, strict=True)
            for entry_id, fields in entries
        ]
        if messages:
            self._entry_bytes = max(1, size // len(messages))
        return ReadResult(messages, translated(trouble.decode()) if trouble else None)

    @translating
    async def wait_for_messages(self, limit: int, longest: timedelta) -> ReadResult:
        """Wait for the first message of any lane, for `longest`; return up to `limit`, or one per lane if all come at once.

        Avoid cancelling it: messages on their way to a cancelled reader stay pending under its name until they are released
        or reclaimed.
        """
        room = self._lost.window.max_bytes // self._entry_bytes
        try:
            with self._lost.receiving(), redis_errors():
                # redis-py's types allow for every protocol and decoding at once; ours are pinned in `connect`.
                replies: Any = await self._group.client.xreadgroup(
                    self._group.name,
                    self._group.consumer,
                    dict.fromkeys(self._keys, ">"),
                    count=max(1, min(limit, room) // len(self._keys)),
                    block=max(1, milliseconds(longest)),
                )
        except GroupLost as error:
            return ReadResult([], error)
        messages = [
            to_message(entry_id, flatten(fields), lane=self._name_of[key])
            for key, entries in replies or ()
            for entry_id, fields in entries
        ]
        if messages:
            self._entry_bytes = max(1, sum(len(message.body) for message in messages) // len(messages))
        return ReadResult(messages)

    def waited_s(self, message: Message, now_s: float) -> float:
        """Return the seconds from the creation of the message's entry to `now_s` (monotonic), by the server's clock: its
        time at the last read, plus what has passed here since."""
        return max(0.0, now_s + self._server_ahead_s - timestamp_ms(message.id) / 1000)
