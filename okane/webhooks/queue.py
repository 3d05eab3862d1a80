"""One endpoint queue: the order, the pace and the cursor of the deliveries to one endpoint. Pure: no I/O, no clock, no dice.

Guarantees: one request per payment in flight, versions in order outside of `hold_s`; nothing begins after the lease;
`done_to` never passes an event that is not delivered, given up, or written as waiting in the same batch.

The dispatcher offers events, begins deliveries while `begin` returns one, passes each answer to `finish`, and writes what
`collect` returns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic
from uuid import UUID

from okane.webhooks.breaker import BreakerRules, Circuit, EndpointBreaker
from okane.webhooks.cursor import Cursor
from okane.webhooks.delivery import HELD, Answer, Batch, Delivery, E, Lease, Limits, Result, State, reason_of
from okane.webhooks.holds import NEVER_SENT_S, Holds
from okane.webhooks.memory import Memory, QueueMemory
from okane.webhooks.schedule import DELAYS_S, pause_s, retry_delay_s
from okane.webhooks.shares import Kind, Shares
from okane.webhooks.token_bucket import TokenBucket

BUFFER = 256  # events in memory
RETRIES = 64  # due retries in memory
MAX_HELD = 10_000  # deliveries that hold back others: beyond it no new event is taken
_PAUSES = frozenset({429, 502, 503, 504})  # their Retry-After is about the endpoint, not about one event


@dataclass(slots=True)
class _Unwritten:
    """The results that are not in Postgres yet, and those that came there since a read of due rows began."""

    pending: dict[int, Result] = field(default_factory=dict)
    writing: dict[int, Result] = field(default_factory=dict)
    written: set[int] = field(default_factory=set)
    is_reading: bool = False

    def __contains__(self, position: int) -> bool:
        return position in self.pending or position in self.writing or position in self.written


class EndpointQueue(Generic[E]):
    """The queue of one endpoint in the process that has leased it. Times are seconds of one monotonic clock."""

    def __init__(
        self,
        limits: Limits,
        *,
        lease: Lease,
        done_to: int,
        now_s: float,
        roll: Callable[[], float],
        written: Collection[int] = (),
        failures: int = 0,
        memory: QueueMemory | None = None,
        rules: BreakerRules | None = None,
        delays_s: Sequence[float] = DELAYS_S,
    ) -> None:
        """`written`: positions beyond `done_to` that have a row. `failures`: in a row, from the owner before."""
        self.lease = lease
        self.stopped = False  # begin nothing: disabled, deleted, or about to be released
        self.is_gone = False  # the endpoint has answered 410
        self.breaker = EndpointBreaker(rules)
        self.holds = Holds()
        self.memory = QueueMemory(Memory()) if memory is None else memory
        self.has_due_rows = False  # rows in Postgres that are due now, by a result of this queue
        self.in_flight = 0
        self.failures = failures
        self._limits = limits
        self._roll = roll
        self._delays_s = delays_s
        self._bucket = _bucket(limits, now_s)
        self._cursor = Cursor(done_to)
        self._replay: Cursor | None = None
        self._skipped = set(written)
        self._shares = Shares()
        self._ready: dict[Kind, deque[Delivery[E]]] = {kind: deque() for kind in Kind}
        self._lines: dict[UUID, deque[Delivery[E]]] = {}  # by payment; the first is ready or in flight
        self._in_memory: dict[Kind, set[int]] = {kind: set() for kind in Kind}
        self._unwritten = _Unwritten()
        self._paused_until_s = now_s
        self._succeeded = False
        self._last_error: str | None = None

    # -- in ----------------------------------------------------------------------------------------------------------

    @property
    def read_to(self) -> int:
        """The position up to which the log was taken."""
        return self._cursor.read_to

    @property
    def done_to(self) -> int:
        """The position up to which every event is delivered, given up, or has a row or a result in the next batch."""
        return self._cursor.done_to

    @property
    def room(self) -> int:
        """The number of new events that may be offered."""
        open_, may = self._cursor.open, len(self.holds) < MAX_HELD
        return self.memory.room(BUFFER - open_, has_none=not open_) if may else 0

    @property
    def retry_room(self) -> int:
        """The number of due retries that may be offered."""
        retries = len(self._in_memory[Kind.RETRY])
        return self.memory.room(RETRIES - retries, has_none=not retries)

    @property
    def is_idle(self) -> bool:
        """True if nothing is in memory: no event, no result, no replay."""
        return not (self._cursor.open or self.in_flight or self._lines or self._replay or self.has_results)

    def offer(self, deliveries: Iterable[Delivery[E]], *, read_to: int, now_s: float) -> None:
        """Take new events in the order of their positions; none but these is for the endpoint up to `read_to`."""
        for one in deliveries:
            if one.position <= self._cursor.read_to:
                continue
            if one.position in self._skipped:
                self._skipped.discard(one.position)
                self._cursor.skip_to(one.position)
                continue
            self._cursor.take(one.position)
            self._enqueue(one, now_s)
        self._cursor.skip_to(read_to)

    def before_reading(self, now_s: float) -> None:
        """Note that a read of due rows begins: what is written from now on may be missing in it."""
        self.holds.expire(now_s)
        self._unwritten.written.clear()
        self._unwritten.is_reading = True
        self.has_due_rows = False

    def offer_retries(self, deliveries: Iterable[Delivery[E]], *, now_s: float) -> None:
        """Take due rows; `before_reading` was called before they were read. Those in work here are skipped."""
        for one in deliveries:
            if not self._is_known(one.position):
                one.kind = Kind.RETRY
                self._enqueue(one, now_s)
        self._unwritten.written.clear()
        self._unwritten.is_reading = False

    def begin_replay(self, after: int) -> None:
        """Begin to replay the events after this position; those of `offer_replays` follow."""
        self._replay = Cursor(after)

    def end_replay(self) -> None:
        """End the replay, once its last batch is written."""
        self._replay = None

    @property
    def replay_room(self) -> int:
        """The number of events of the replay that may be offered; 0 without one."""
        replay = self._replay
        return 0 if replay is None else self.memory.room(BUFFER - replay.open, has_none=not replay.open)

    @property
    def replay_read_to(self) -> int:
        """The position up to which the replay's events were offered."""
        return 0 if self._replay is None else self._replay.read_to

    @property
    def replay_done_to(self) -> int:
        """The position up to which the replay is done; 0 without one."""
        return 0 if self._replay is None else self._replay.done_to

    def offer_replays(self, deliveries: Iterable[Delivery[E]], *, read_to: int, now_s: float) -> None:
        """Take events to send again, as `offer` does. One that is in work here is sent once."""
        replay = self._replay
        if replay is None:
            return
        for one in deliveries:
            if one.position <= replay.read_to:
                continue
            if one.position in self._in_memory[Kind.REPLAY]:  # of a replay that begins anew: it must not pass them
                replay.take(one.position)
            elif not self._is_known(one.position):
                replay.take(one.position)
                one.kind = Kind.REPLAY
                self._enqueue(one, now_s)
        replay.skip_to(read_to)

    def load_hold(self, payment_id: UUID, position: int, *, until_s: float) -> None:
        """Take a waiting row that an owner before has written (`NEVER_SENT_S`: it was never sent)."""
        self.holds.add(payment_id, position, until_s=until_s)

    def _is_known(self, position: int) -> bool:
        return position in self._unwritten or any(position in some for some in self._in_memory.values())

    def _enqueue(self, one: Delivery[E], now_s: float) -> None:
        line = self._lines.get(one.payment_id)
        if line is not None:
            self._take(one)
            line.append(one)
        elif (until_s := self.holds.held_until_s(one.payment_id, one.position, now_s)) is not None:
            self._hold(one, until_s, now_s)
        else:
            self._take(one)
            self._lines[one.payment_id] = deque((one,))
            self._ready[one.kind].append(one)

    def _hold(self, one: Delivery[E], until_s: float, now_s: float) -> None:
        """Write that a delivery waits for an earlier one of its payment: it takes no place in memory meanwhile.

        One that was never sent is woken by the end of the earlier one. Others look again soon.
        """
        self._leave(one)
        delay_s = self._limits.hold_s if until_s == NEVER_SENT_S else until_s - now_s
        if one.attempts == 0:
            self.holds.add(one.payment_id, one.position, until_s=NEVER_SENT_S)
        else:
            delay_s = min(delay_s, self._delays_s[0])
        # The row of a replayed event may say that it was delivered: only an attempt makes it wait again.
        ms = 0 if one.kind is Kind.REPLAY else None
        self._postpone(one.position, attempts=one.attempts, delay_s=delay_s, now_s=now_s, ms=ms)

    def _postpone(self, position: int, *, attempts: int, delay_s: float, now_s: float, ms: int | None = None) -> None:
        before = self._unwritten.pending.get(position)
        if before is not None and before.is_attempt:
            return  # an attempt that has failed since has its own time
        self._unwritten.pending[position] = Result(
            position=position,
            state="waiting",
            attempts=attempts,
            ended_at_s=now_s,
            ms=before.ms if before is not None and ms is None else ms,
            reason=HELD,
            delay_s=delay_s,
            is_attempt=False,
        )

    # -- out ---------------------------------------------------------------------------------------------------------

    def begin(self, now_s: float) -> Delivery[E] | None:
        """Return the next delivery, now in flight, or None if none may begin. Each ends with `finish`."""
        slots = self.breaker.slots(self._limits.max_in_flight)
        if self.in_flight >= slots or self.stopped or now_s >= self.lease.until_s or now_s < self._paused_until_s:
            return None
        kinds = [kind for kind, ready in self._ready.items() if ready]
        if not kinds or self.breaker.wait_s(now_s) > 0:
            return None
        if self._bucket is not None:
            if self._bucket.wait_s(now_s) > 0:
                return None
            self._bucket.take(now_s)
        kind = self._shares.choose(kinds)
        one = self._ready[kind].popleft()
        one.is_probe = self.breaker.state is Circuit.OPEN
        self._shares.begin(kind)
        self.in_flight += 1
        return one

    def wake_at_s(self, now_s: float) -> float | None:
        """Return when `begin` may return something that waits for time alone; None if nothing does."""
        if self.stopped or not any(self._ready.values()):
            return None
        if self.in_flight >= self.breaker.slots(self._limits.max_in_flight):
            return None
        bucket_s = 0.0 if self._bucket is None else self._bucket.wait_s(now_s)
        return max(self._paused_until_s, now_s + self.breaker.wait_s(now_s), now_s + bucket_s)

    def finish(self, one: Delivery[E], answer: Answer, now_s: float) -> State | None:
        """Take the answer; return the delivery's state, or None if it stays in memory.

        It does after a failed probe, which costs the event no attempt, and after 410, which ends the queue.
        """
        self.in_flight -= 1
        self._shares.end(one.kind)
        if answer.outcome == "delivered":
            return self._deliver(one, answer, now_s)
        self.failures += 1
        self._last_error = reason_of(answer)
        self.breaker.fail(now_s, probe=one.is_probe)
        if answer.status in _PAUSES:
            self._paused_until_s = max(self._paused_until_s, now_s + pause_s(answer.retry_after))
        if answer.status == 410:
            self.stopped = self.is_gone = True
            self._ready[one.kind].appendleft(one)
            return None
        if one.is_probe:
            self._ready[one.kind].append(one)  # the next probe is of another event, in case that this one is the reason
            return None
        return self._fail(one, answer, now_s)

    def give_back(self, one: Delivery[E]) -> None:
        """Take back a delivery whose request did not begin."""
        self.in_flight -= 1
        self._shares.end(one.kind)
        self._ready[one.kind].appendleft(one)

    def _deliver(self, one: Delivery[E], answer: Answer, now_s: float) -> State:
        self.failures, self._succeeded, self._last_error = 0, True, None
        self.breaker.succeed(self._limits.max_in_flight)
        self._end(one, "delivered", answer, None, now_s)
        return "delivered"

    def _fail(self, one: Delivery[E], answer: Answer, now_s: float) -> State:
        attempts = one.attempts + 1
        delay_s = retry_delay_s(attempts, roll=self._roll(), retry_after_s=answer.retry_after, delays_s=self._delays_s)
        state: State = "given_up" if delay_s is None else "waiting"
        self._end(one, state, answer, delay_s, now_s)
        return state

    def _end(self, one: Delivery[E], state: State, answer: Answer, delay_s: float | None, now_s: float) -> None:
        """Note the row of an attempt, and let the payment's next delivery go, or wait."""
        self.holds.expire(now_s)
        if state == "waiting":
            if one.attempts == 0:  # the time counts from the first failure
                self.holds.add(one.payment_id, one.position, until_s=now_s + self._limits.hold_s)
        else:
            self.holds.end(one.payment_id, one.position)
        self._unwritten.pending[one.position] = Result(
            position=one.position,
            state=state,
            attempts=one.attempts + 1,
            ended_at_s=now_s,
            status=answer.status,
            ms=answer.ms,
            reason=None if state == "delivered" else reason_of(answer),
            delay_s=delay_s,
        )
        self._leave(one)
        self._next_of(one.payment_id, now_s)

    def _next_of(self, payment_id: UUID, now_s: float) -> None:
        """Make the next delivery of a payment ready, hold all of them back, or wake one that was held back before."""
        line = self._lines[payment_id]
        line.popleft()
        while line:
            until_s = self.holds.held_until_s(payment_id, line[0].position, now_s)
            if until_s is None:
                self._ready[line[0].kind].append(line[0])
                return
            self._hold(line.popleft(), until_s, now_s)
        del self._lines[payment_id]
        held = self.holds.next_held(payment_id, now_s)
        if held is not None:
            self._postpone(held, attempts=0, delay_s=0.0, now_s=now_s)
            self.has_due_rows = True

    def _take(self, one: Delivery[E]) -> None:
        self._in_memory[one.kind].add(one.position)
        self.memory.take(one.size)

    def _leave(self, one: Delivery[E]) -> None:
        if one.position in self._in_memory[one.kind]:
            self._in_memory[one.kind].remove(one.position)
            self.memory.give(one.size)
        match one.kind:
            case Kind.LIVE:
                self._cursor.finish(one.position)
            case Kind.REPLAY:
                if self._replay is not None:
                    self._replay.finish(one.position)
            case Kind.RETRY:
                pass

    # -- results -----------------------------------------------------------------------------------------------------

    @property
    def has_results(self) -> bool:
        """True if something is to be written."""
        return bool(self._unwritten.pending or self._unwritten.writing)

    def collect(self) -> Batch:
        """Return what is to be written in one statement; `confirm` follows once it is. One batch at a time."""
        unwritten = self._unwritten
        if unwritten.writing:
            raise RuntimeError("the batch before is not written yet")
        unwritten.writing, unwritten.pending = unwritten.pending, {}
        batch = Batch(
            results=list(unwritten.writing.values()),
            done_to=self._cursor.done_to,
            failures=self.failures,
            succeeded=self._succeeded,
            last_error=self._last_error,
            replayed_to=None if self._replay is None else self._replay.done_to,
        )
        self._succeeded = False
        return batch

    def confirm(self) -> None:
        """Note that the batch is committed."""
        if self._unwritten.is_reading:
            self._unwritten.written.update(self._unwritten.writing)
        self._unwritten.writing = {}

    def change(self, limits: Limits, now_s: float) -> None:
        """Take changed settings."""
        if limits.rate_limit != self._limits.rate_limit:
            self._bucket = _bucket(limits, now_s)
        self._limits = limits


def _bucket(limits: Limits, now_s: float) -> TokenBucket | None:
    return None if limits.rate_limit is None else TokenBucket(limits.rate_limit, now_s=now_s)
