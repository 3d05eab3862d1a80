"""Publishes to the partitions of a stream: one round trip for each node, all nodes at once.

Guarantee: a node that cannot be used keeps no message from the partitions of the others, and holds up their callers once, not
each time.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from redis.asyncio import Redis

from streams import scripts
from streams.clock import Clock, SystemClock
from streams.cluster import address_finder
from streams.coalesce import Coalescer
from streams.connection import redis_errors
from streams.draft import Draft, Packed
from streams.errors import PartlyPublished, StreamError, StreamFull, StreamUnavailable
from streams.metrics import Metrics
from streams.partitions import Partitions
from streams.producer import Producer

Result = str | BaseException | None  # an entry id, the message's error, or None where its lane is full


@dataclass(slots=True)
class _Failure:
    """The last error of a partition, which is left alone until `until_s`. `tried`: a caller tries it again meanwhile."""

    error: StreamError
    until_s: float
    tried: bool = False


class PartitionedProducer(Producer):
    """A `Producer` for several partitions. `max_length` bounds every lane of each of them.

    A partition whose node takes longer than `patience`, or that cannot be used, is left alone for `pause`: its messages are
    refused at once meanwhile, with its error. Then one caller tries it.
    """

    def __init__(
        self,
        client: Redis,
        partitions: Partitions,
        *,
        max_length: int | None = None,
        max_batch: int = 256,
        patience: timedelta = timedelta(milliseconds=800),
        pause: timedelta = timedelta(seconds=1),
        clock: Clock | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        super().__init__(client, partitions.stream, max_length=max_length, max_batch=max_batch, metrics=metrics)
        self._partitions = partitions
        self._keys = [one.dead_key for one in partitions.streams]  # one of each is enough to find its node
        self._max_batch = max_batch
        self._patience_s = patience.total_seconds()
        self._pause_s = pause.total_seconds()
        self._clock = clock or SystemClock()
        self._nodes: dict[str, Coalescer[Packed, str | None]] = {}  # by address: each has a batch of its own under way
        self._failures: dict[int, _Failure] = {}  # by partition

    async def publish(self, body: bytes, *, lane: str | None = None, headers: Mapping[str, str] | None = None) -> str:
        """Add a message and return its entry id. Raises as `Producer.publish`."""
        packed = self._packer.pack(body, lane, headers)
        number = self._partitions.of(body)
        if self._failures and (closed := self._closed([number])):
            raise closed[number]
        with redis_errors():
            address_of = await address_finder(self._client)
        entry_id = await self._node(address_of(self._keys[number])).submit(packed)
        if entry_id is None:
            raise StreamFull("message refused: its lane is full")
        return entry_id

    async def publish_many(self, drafts: Sequence[Draft]) -> list[str]:
        """Add all of `drafts`, those of one partition in order, and return their entry ids. Raises as
        `Producer.publish_many`, and `PartlyPublished` if some partitions cannot be used and others took their messages."""
        packed = [self._packer.pack(draft.body, draft.lane, draft.headers) for draft in drafts]
        results = await self._publish_all(packed)
        ids = [result for result in results if isinstance(result, str)]
        if len(ids) < len(results):
            raise _failure(results)
        return ids

    async def check(self) -> None:
        """Raise `StreamError` unless every partition takes messages now. Adds none."""
        checks = [scripts.check(self._client, one) for one in self._partitions.streams]
        for error in await asyncio.gather(*checks, return_exceptions=True):
            if error is not None:
                raise error

    async def aclose(self) -> None:
        """Refuse further messages, and wait for those under way. The client stays open: it is the caller's."""
        await asyncio.gather(super().aclose(), *(node.aclose() for node in self._nodes.values()))

    async def _publish_all(self, packed: Sequence[Packed]) -> Sequence[Result]:
        """Send the messages of each node; return the result of each message."""
        numbers = [self._partition_of(fields) for _, fields in packed]
        closed = self._closed(numbers) if self._failures else {}
        with redis_errors():
            address_of = await address_finder(self._client)
        node_of = {number: address_of(self._keys[number]) for number in set(numbers) if number not in closed}
        if not closed and len(nodes := set(node_of.values())) == 1:
            return await self._node(nodes.pop()).submit_many(packed)
        places: dict[str, list[int]] = defaultdict(list)
        for at, number in enumerate(numbers):
            if number not in closed:
                places[node_of[number]].append(at)
        sending = [self._node(address).submit_many([packed[at] for at in its]) for address, its in places.items()]
        results: list[Result] = [closed.get(number) for number in numbers]
        for its, results_of_node in zip(places.values(), await asyncio.gather(*sending), strict=True):
            for at, result in zip(its, results_of_node, strict=True):
                results[at] = result
        return results

    def _closed(self, numbers: Iterable[int]) -> Mapping[int, StreamError]:
        """Return the partitions that are left alone now, with their errors. The caller tries the others."""
        now_s = self._clock.monotonic()
        closed = {}
        for number in self._failures.keys() & set(numbers):
            failure = self._failures[number]
            if now_s < failure.until_s:
                closed[number] = failure.error
            else:  # if the caller is cancelled, another one tries it after that time
                failure.tried, failure.until_s = True, now_s + self._patience_s + self._pause_s
        return closed

    def _node(self, address: str) -> Coalescer[Packed, str | None]:
        found = self._nodes.get(address)
        if found is None:
            found = self._nodes[address] = Coalescer(self._flush, max_batch=self._max_batch)
        return found

    async def _add(self, part: Sequence[Packed]) -> Sequence[Result]:
        places: dict[int, list[int]] = defaultdict(list)
        for at, (_, fields) in enumerate(part):
            places[self._partition_of(fields)].append(at)
        results: list[Result] = [None] * len(part)
        for number in [*places] if self._failures else ():
            failure = self._failures.get(number)
            if failure is not None and not failure.tried:  # it failed while these were waiting
                for at in places.pop(number):
                    results[at] = failure.error
        for number, added in zip(places, await self._add_to(part, places) if places else (), strict=True):
            its = places[number]
            for at, result in zip(its, [added] * len(its) if isinstance(added, StreamError) else added, strict=True):
                results[at] = result
        return results

    async def _add_to(
        self, part: Sequence[Packed], places: Mapping[int, Sequence[int]]
    ) -> Sequence[Sequence[str | None] | StreamError]:
        """Add messages in one round trip; return the ids of each partition, or its error. Raises StreamError if the node does
        not answer."""
        streams = self._partitions.streams
        batches = [(streams[number], [part[at] for at in its]) for number, its in places.items()]
        try:
            async with asyncio.timeout(self._patience_s):
                added = await scripts.publish_to(self._client, batches, max_length=self._max_length)
        except (StreamError, TimeoutError) as error:
            silent = isinstance(error, TimeoutError)
            failure = StreamUnavailable(f"no answer in {self._patience_s:g} s") if silent else error
            self._record(places, [failure] * len(places))
            raise failure from error
        self._record(places, added)
        return added

    def _record(self, numbers: Iterable[int], added: Sequence[Sequence[str | None] | BaseException]) -> None:
        """Remember which partitions cannot be used, and which can again."""
        for number, one in zip(numbers, added, strict=True):
            if isinstance(one, StreamError):
                self._failures[number] = _Failure(one, self._clock.monotonic() + self._pause_s)
            elif self._failures:
                self._failures.pop(number, None)

    def _partition_of(self, fields: Sequence[str | bytes | int]) -> int:
        body = fields[1]
        assert isinstance(body, bytes)
        return self._partitions.of(body)


def _failure(results: Sequence[Result]) -> BaseException:
    """Return the error that tells which of these messages are published."""
    published = [result if isinstance(result, str) else None for result in results]
    errors = [result for result in results if isinstance(result, BaseException)]
    if not errors:
        refused = published.count(None)
        return StreamFull(f"{refused} of {len(results)} messages refused: lane full", published=published)
    if len(errors) == len(results):
        return errors[0]
    return PartlyPublished(f"{len(errors)} of {len(results)} messages not published: {errors[0]}", published=published)
