"""Random histories of one endpoint queue over a model of its rows: owners die, answers fail, reads are stale."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

import pytest

from okane.webhooks.breaker import BreakerRules
from okane.webhooks.delivery import Batch, Delivery, Lease, Limits
from okane.webhooks.holds import NEVER_SENT_S
from tests.okane.webhook_queues import FAILED, OK, Queue, payment

EVENTS = 60
PAYMENTS = 7
HOLD_S = 300.0
DELAYS_S = (5.0, 30.0, 60.0, 100.0)


@dataclass
class Row:
    state: str
    attempts: int
    next_at_s: float
    first_failed_s: float | None


@dataclass
class World:
    """The log, the rows in Postgres, the receiver's journal, and the queue of the owner of now."""

    random: random.Random
    hold_s: float
    now_s: float = 0.0
    last: int = 0
    done_to: int = 0
    of_payment: dict[int, int] = field(default_factory=dict)
    rows: dict[int, Row] = field(default_factory=dict)
    journal: list[tuple[int, bool]] = field(default_factory=list)
    in_flight: list[Delivery[str]] = field(default_factory=list)
    writing: Batch | None = None
    due: list[Delivery[str]] | None = None  # read, and not offered yet
    failing: float = 0.0

    def __post_init__(self) -> None:
        self.queue = self.new_owner()

    def new_owner(self) -> Queue:
        self.in_flight, self.writing, self.due = [], None, None
        queue = Queue(
            Limits(max_in_flight=self.random.choice((1, 3, 8)), hold_s=self.hold_s),
            lease=Lease(math.inf),
            done_to=self.done_to,
            now_s=self.now_s,
            roll=self.random.random,
            written=[one for one in self.rows if one > self.done_to],
            rules=BreakerRules(failures=6),
            delays_s=DELAYS_S,
        )
        for position, row in self.rows.items():
            if row.state == "waiting":
                first_s = row.first_failed_s
                until_s = NEVER_SENT_S if first_s is None else first_s + self.hold_s
                if until_s > self.now_s:
                    queue.load_hold(payment(self.of_payment[position]), position, until_s=until_s)
        return queue

    def delivery(self, position: int, attempts: int = 0) -> Delivery[str]:
        return Delivery(position, payment(self.of_payment[position]), f"event {position}", attempts=attempts)

    def happens(self) -> None:
        for _ in range(self.random.randint(0, 4)):
            if self.last < EVENTS:
                self.last += 1
                self.of_payment[self.last] = self.random.randrange(PAYMENTS)

    def feeds(self) -> None:
        upto = min(self.last, self.queue.read_to + self.queue.room)
        self.queue.offer(
            [self.delivery(one) for one in range(self.queue.read_to + 1, upto + 1)], read_to=upto, now_s=self.now_s
        )

    def reads_due_rows(self) -> None:
        if self.due is None:
            self.queue.before_reading(self.now_s)
            due = [one for one, row in self.rows.items() if row.state == "waiting" and row.next_at_s <= self.now_s]
            self.due = [self.delivery(one, self.rows[one].attempts) for one in due[: self.queue.retry_room]]

    def offers_due_rows(self) -> None:
        if self.due is not None:
            self.queue.offer_retries(self.due, now_s=self.now_s)
            self.due = None

    def begins(self) -> None:
        while (one := self.queue.begin(self.now_s)) is not None:
            mine = [other for other in self.in_flight if other.payment_id == one.payment_id]
            assert not mine, f"{one.position} beside {mine[0].position}"
            self.in_flight.append(one)

    def ends(self) -> None:
        self.random.shuffle(self.in_flight)
        for _ in range(self.random.randint(0, len(self.in_flight))):
            one = self.in_flight.pop()
            succeeds = self.random.random() >= self.failing
            self.journal.append((one.position, succeeds))
            self.queue.finish(one, OK if succeeds else FAILED, self.now_s)

    def collects(self) -> None:
        if self.writing is None and self.queue.has_results:
            self.writing = self.queue.collect()

    def writes(self) -> None:
        if self.writing is None:
            return
        for one in self.writing.results:
            row = self.rows.setdefault(one.position, Row("waiting", 0, math.inf, None))
            assert row.state == "waiting" or one.is_attempt, f"{one.position} waits after {row.state}"
            row.next_at_s = math.inf if one.delay_s is None else one.ended_at_s + one.delay_s
            if one.is_attempt:
                row.state, row.attempts = one.state, one.attempts
                row.first_failed_s = one.ended_at_s if row.first_failed_s is None else row.first_failed_s
        self.done_to = self.writing.done_to
        assert all(one in self.rows for one in range(1, self.done_to + 1)), "the cursor passed an event"
        self.writing = None
        self.queue.confirm()

    def passes(self) -> None:
        self.now_s += self.random.choice((0.05, 1.0, 7.0, 60.0))

    def dies(self) -> None:
        if self.random.random() < 0.05:
            for one in self.in_flight:  # the endpoint may have processed it
                if self.random.random() < 0.5:
                    self.journal.append((one.position, True))
            self.queue = self.new_owner()

    def rests(self) -> bool:
        if self.last < EVENTS or self.done_to < EVENTS:
            return False
        return all(row.state != "waiting" for row in self.rows.values())


STEPS = ("happens", "feeds", "reads_due_rows", "offers_due_rows", "begins", "ends", "collects", "writes", "passes")


def run(seed: int, *, hold_s: float, failing: float, deaths: bool) -> World:
    """Run a history until everything is at rest: the endpoint works again after a while."""
    dice = random.Random(seed)
    world = World(dice, hold_s, failing=failing)
    steps = (*STEPS, "dies") if deaths else STEPS
    for number in range(20_000):
        getattr(world, dice.choice(steps))()
        if number == 1_500:
            world.failing = 0.0
        if world.rests():
            return world
    raise AssertionError(f"no rest: {world.done_to} of {world.last}, {world.rows}")


def first_successes(world: World) -> list[int]:
    return list(dict.fromkeys(position for position, succeeded in world.journal if succeeded))


@pytest.mark.parametrize("seed", range(25))
def test_every_event_arrives_or_is_given_up_and_none_twice(seed: int) -> None:
    world = run(seed, hold_s=HOLD_S, failing=0.4, deaths=False)
    delivered = [position for position, succeeded in world.journal if succeeded]
    assert len(delivered) == len(set(delivered))
    given_up = {position for position, row in world.rows.items() if row.state == "given_up"}
    assert set(delivered) | given_up == set(range(1, EVENTS + 1))
    assert not set(delivered) & given_up


@pytest.mark.parametrize("seed", range(25))
def test_versions_arrive_in_order_while_nothing_is_older_than_the_hold(seed: int) -> None:
    world = run(seed, hold_s=1e9, failing=0.4, deaths=seed % 2 == 0)
    arrived: dict[int, list[int]] = {}
    for position in first_successes(world):
        arrived.setdefault(world.of_payment[position], []).append(position)
    assert all(positions == sorted(positions) for positions in arrived.values())


@pytest.mark.parametrize("seed", range(25))
def test_the_death_of_an_owner_loses_no_event(seed: int) -> None:
    world = run(seed, hold_s=HOLD_S, failing=0.3, deaths=True)
    given_up = {position for position, row in world.rows.items() if row.state == "given_up"}
    assert set(first_successes(world)) | given_up == set(range(1, EVENTS + 1))
