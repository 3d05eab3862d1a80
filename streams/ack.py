"""Acks messages: `Done` removes the entry (XACK and XDEL), `Retry` moves the message to the delayed set, `Dead` to the
dead letters.

Guarantees: each message moves in the same step in which its entry goes, only while this consumer holds it, and
independently of the others in its batch. Many share a round trip.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, assert_never

from streams import scripts
from streams.batcher import Batcher
from streams.byte_window import SMALLEST, ByteWindow
from streams.clock import milliseconds
from streams.connection import Outage, translated
from streams.draft import fields_size
from streams.entry import to_dead_fields, to_fields
from streams.errors import CommandRejected, StreamError, StreamUnavailable
from streams.failpoints import failpoint
from streams.flights import Flight, Flights
from streams.group import Group
from streams.metrics import Metrics
from streams.outcome import Dead, Done, Outcome, Retry

log = logging.getLogger("streams")

_MAX_BATCH: Final = 512  # messages per round trip
# Messages per call. The server does nothing else meanwhile: 0.8 ms with a million entries, 1.4 at worst.
_MAX_CALL: Final = 128
_MAX_FIELDS: Final = 7_000  # names and values of an entry: Lua's `unpack` takes some more

BEFORE_ACK = failpoint("settle.before_ack", "outcomes known, entries not acked", raises=StreamUnavailable)
AFTER_ACK = failpoint("settle.after_ack", "entries acked, the reply lost", raises=StreamUnavailable)


class Acker:
    """Acks for one consumer, and lands what is acked. It retries while the server is away. The entries are pending
    meanwhile, so that ending the retries loses nothing: they are delivered again."""

    def __init__(
        self,
        group: Group,
        *,
        flights: Flights,
        outage: Outage,
        refusals: Outage,
        metrics: Metrics,
    ) -> None:
        self._group = group
        self._flights = flights
        self._outage = outage
        self._refusals = refusals  # of single messages: acks of other messages do not end them
        self._retrying = 0  # batches with refused messages left
        self._metrics = metrics
        self._window = ByteWindow(group.client)
        self._stop_retrying = asyncio.Event()
        self._batcher: Batcher[Flight] = Batcher(self._flush, max_batch=_MAX_BATCH)

    @property
    def unable_for(self) -> timedelta:
        """The time since which the server has refused some or all acks; zero while it takes all."""
        return max(self._outage.duration, self._refusals.duration)

    def ack(self, flight: Flight, outcome: Outcome) -> None:
        """Ack the message; a `Retry` must have its delay. It lands when it is acked, or when that is impossible."""
        flight.outcome = outcome
        if flight.landed:  # abandoned meanwhile: another consumer may hold it by now
            log.warning(
                "outcome of message %s of lane %s dropped: it came too late", flight.message.id, flight.message.lane
            )
            return
        self._batcher.add(flight)

    async def stop_retrying(self) -> None:
        """Send what waits once more, without further retries: what the server does not take stays pending. Return when
        all have landed."""
        self._stop_retrying.set()
        try:
            await self._batcher.idle()
        finally:
            self._stop_retrying.clear()

    async def _flush(self, batch: Sequence[Flight]) -> None:
        error: BaseException = RuntimeError("a bug: it was left out of its batch")
        try:
            refused = await self._send_all(batch)
            if refused:
                await self._retry_refused(refused)
        except BaseException as caught:  # a bug, or a cancellation
            error = caught
            if not isinstance(error, Exception):
                raise
        finally:
            if left := [flight for flight in batch if not flight.landed]:
                self._flights.land(left, error)

    async def _send_all(self, batch: Sequence[Flight]) -> list[tuple[Flight, StreamError]]:
        """Land what is acked. Return the messages that the server refuses for now while it takes others, each with its
        error."""
        refused: list[tuple[Flight, StreamError]] = []
        parts = self._parts(batch)
        while parts:
            trip = self._first_trip(parts)
            rest, refused_of_trip = await self._send_trip(trip)
            refused += refused_of_trip
            parts = [*rest, *parts[len(trip) :]]
        return refused

    async def _retry_refused(self, refused: list[tuple[Flight, StreamError]]) -> None:
        """Retry the refused messages until the server takes them. Later batches do not wait for them."""
        self._batcher.release()
        self._retrying += 1
        try:
            while refused:
                await self._refusals.wait(refused[0][1], self._stop_retrying)
                refused = await self._send_all([flight for flight, _ in refused])
        finally:
            self._retrying -= 1
            if not self._retrying:
                self._refusals.end()

    def _parts(self, batch: Sequence[Flight]) -> list[_Part]:
        """Split the batch into calls, each small enough for any round trip, except for its last message. A message that
        cannot be written lands pending, and keeps no other from being acked."""
        part = _Part()
        parts = [part]
        flights, entries = part.flights, part.request.entries
        for flight in batch:
            if len(flights) == _MAX_CALL or part.size >= SMALLEST:
                part = _Part()
                parts.append(part)
                flights, entries = part.flights, part.request.entries
            message = flight.message
            if type(flight.outcome) is not Done:
                try:
                    part.size += _add(part.request, flight, self._group.name)
                except Exception as error:
                    self._flights.land([flight], error)
                    continue
            entries[message.lane].append(message.id)
            flights.append(flight)
            if flight.group_was_recreated:
                part.request.recreated = True
        return [part for part in parts if part.flights]

    def _first_trip(self, parts: Sequence[_Part]) -> Sequence[_Part]:
        """Return the first parts, as many as one round trip may carry, at least one."""
        size = 0
        for at, part in enumerate(parts):
            size += part.size
            if size > self._window.max_bytes and at:
                return parts[:at]
        return parts

    async def _send_trip(self, parts: Sequence[_Part]) -> tuple[list[_Part], list[tuple[Flight, StreamError]]]:
        """Land what the server has taken, and what it will never take. Return the parts that it did not answer, after a
        pause, and the messages that it refused, each with its error."""
        rest: list[_Part] = []
        refused: list[tuple[Flight, StreamError]] = []
        away: StreamError | None = None
        for part, answer in zip(parts, await self._send(parts), strict=True):
            if isinstance(answer, StreamError) and self._is_passing(answer):
                away = answer
                part.repeated = True
                rest.append(part)
            elif isinstance(answer, StreamError):
                self._flights.land(part.flights, answer)
            else:
                refused += self._land(part, answer)
        if away is not None:
            await self._outage.wait(away, self._stop_retrying)
        else:
            self._outage.end()
        return rest, refused

    def _is_passing(self, error: StreamError) -> bool:
        """Return True if a retry may work. An error in the command itself concerns only its entries: retrying would hold
        up the others."""
        passing = isinstance(error, StreamUnavailable) and not isinstance(error, CommandRejected)
        return passing and not self._stop_retrying.is_set()

    async def _send(self, parts: Sequence[_Part]) -> Sequence[Sequence[scripts.NotAcked] | StreamError]:
        try:
            if BEFORE_ACK.armed:
                await BEFORE_ACK.hit()
            sent_s = time.perf_counter()
            found = await scripts.ack(self._group, [part.request for part in parts])
            took_s = time.perf_counter() - sent_s
            self._metrics.round_trip("settle", took_s)
            self._window.record(sum(part.size for part in parts), took_s)
            if AFTER_ACK.armed:
                await AFTER_ACK.hit()
        except StreamError as error:
            self._window.record_failure()
            return [error] * len(parts)
        return found

    def _land(self, part: _Part, not_acked: Sequence[scripts.NotAcked]) -> list[tuple[Flight, StreamError]]:
        """Land the messages of a part. Return those that the server refused for now, each with its error."""
        acked = part.flights
        refused: list[tuple[Flight, StreamError]] = []
        if not_acked:
            acked, refused = self._land_not_acked(part, not_acked)
        self._metrics.batch("settle", len(acked))
        # A message that came back for another group is only acked: it is no outcome of this one.
        group = self._group.name
        counts = Counter(
            [
                (message.lane, type(flight.outcome))
                for flight in acked
                if (message := flight.message).group is None or message.group == group
            ]
        )
        for (lane, outcome), count in counts.items():
            self._metrics.settled(lane, _outcome_name(outcome), count)
        self._flights.land(acked)
        return refused

    def _land_not_acked(
        self, part: _Part, not_acked: Sequence[scripts.NotAcked]
    ) -> tuple[list[Flight], list[tuple[Flight, StreamError]]]:
        """Land the messages that will not be acked. Return the acked ones, and those to retry."""
        refused: list[tuple[Flight, StreamError]] = []
        left = {(flight.message.lane, flight.message.id): flight for flight in part.flights}
        stale: list[Flight] = []
        for lane, entry_id, why in not_acked:
            if why == scripts.GONE and part.repeated:
                continue  # most likely acked by the call before, whose reply was lost
            flight = left.pop((lane, entry_id))
            if why in (scripts.TAKEN, scripts.GONE):
                stale.append(flight)
            elif self._is_passing(error := translated(why)):
                refused.append((flight, error))
            else:
                self._flights.land([flight], error)
        if stale:
            first = stale[0].message
            log.warning(
                "outcomes of %d messages dropped, first %s of lane %s: their leases had run out, and another consumer "
                "has taken them over",
                len(stale),
                first.id,
                first.lane,
            )
            for lane, count in Counter([flight.message.lane for flight in stale]).items():
                self._metrics.stale(lane, count)
            self._flights.land(stale, acked=False)
        return list(left.values()), refused


def _outcome_name(outcome: type[Outcome | None]) -> str:
    """Return `done`, `retry` or `dead`, also for a subclass."""
    return next(one.__name__.lower() for one in outcome.__mro__ if one in (Done, Retry, Dead))


@dataclass(slots=True)
class _Part:
    """Messages that one call acks. `repeated`: an earlier call was not answered, and may have been executed."""

    flights: list[Flight] = field(default_factory=list)
    request: scripts.AckRequest = field(default_factory=scripts.AckRequest)
    repeated: bool = False
    size: int = 0  # bytes of retries and dead letters


def _add(request: scripts.AckRequest, flight: Flight, group: str) -> int:
    """Add the retry or dead letter of the message, if any, and return its bytes. Add nothing when it raises."""
    message, size = flight.message, 0
    match flight.outcome:
        case Done():
            pass
        case Retry(after=after):
            assert after is not None, "resolved before it is acked"
            fields = _checked(to_fields(message.body, message.headers, attempt=message.attempt + 1, group=group))
            request.retries.append((message.lane, message.id, milliseconds(after), fields))
            size = fields_size(fields)
        case Dead(reason=reason):
            fields = _checked(to_dead_fields(message, reason, group=group))
            request.dead.append((message.lane, message.id, fields))
            size = fields_size(fields)
        case None:
            raise AssertionError("it has no outcome")
        case outcome:
            assert_never(outcome)
    return size


def _checked(fields: list[str | bytes | int]) -> list[str | bytes | int]:
    """Return the fields. Raise ValueError for too many, as another program may write: they would fail the whole script."""
    if len(fields) > _MAX_FIELDS:
        raise ValueError(f"it has {len(fields):,} fields, and at most {_MAX_FIELDS:,} can be settled but as done")
    return fields
