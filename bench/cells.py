"""Simulate many cells behind one router: `python -m bench.cells --rate 1000000 --figures bench.json`.

A cell is a whole okane, with servers of its own. The router sends a payment to the cell that the hash of its account and
idempotency key names; a cell that is down refuses, and its clients repeat the request with the same key, after 1, 2, 4, 8
and then each 10 s. Some cells are killed in the middle, and come back. Printed: what was refused meanwhile, and what waited.

The rate of one cell comes from a measurement, `okane bench --only b --json > bench.json` on its machines, or --cell-rate.
"""

from __future__ import annotations

import argparse
import dataclasses
import heapq
import json
import math
import random
from collections import Counter, deque
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from bench.parts.end_to_end import PER_S
from bench.progress import say
from okane.payment_id import CELLS

TICK_S = 0.01
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 10.0)  # of a client, before it repeats a refused request
USED = 0.7  # of the rate of a cell, so that it catches up after an outage
LATE_TICKS = 3  # a cell that has no more than so much waiting is not behind


def cell_of_request(account_id: str, idempotency_key: str, cells: int) -> int:
    """Return the cell that takes this request, every time: equal requests have to meet the row of the first."""
    name = f"{account_id}\0{idempotency_key}".encode()
    return int.from_bytes(blake2b(name, digest_size=8).digest()) % cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The simulated system and its outage: `killed` of `cells` are down from `before_s` for `down_s`."""

    cells: int
    rate_per_s: float
    cell_rate_per_s: float
    killed: int
    before_s: float = 10.0
    down_s: float = 30.0
    after_s: float = 90.0  # longer than it takes to catch up
    seed: int = 1

    @property
    def back_s(self) -> float:
        return self.before_s + self.down_s

    @property
    def arrivals(self) -> float:
        """Requests for one cell in a tick."""
        return self.rate_per_s * TICK_S / self.cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The result. Delays are from a payment's first request to its end, those of `killed` cells and of the others."""

    requested: int
    settled: int
    refused_share: float  # of the first requests while cells were down
    most_waiting: int  # payments of the killed cells: refused so far, or accepted and not settled
    others_p50_s: float
    others_p99_s: float
    killed_p50_s: float
    killed_p99_s: float
    caught_up_s: float  # from the return of the cells until none was behind


class Cell:
    """The queue of one cell: when payments came, and how many, oldest first."""

    def __init__(self) -> None:
        self.is_up = True
        self.count = 0
        self._queue: deque[tuple[float, int]] = deque()
        self._credit = 0.0

    def take(self, came_s: float, count: int) -> None:
        self._queue.append((came_s, count))
        self.count += count

    def settle(self, now_s: float, most: float, delays: Counter[int]) -> None:
        """Settle what waits, up to `most`; count it by its delay in ms."""
        self._credit = min(self._credit, max(1.0, most)) + most
        while self._queue and self._credit >= 1:
            came_s, count = self._queue.popleft()
            settled = min(count, int(self._credit))
            delays[round((now_s - came_s) * 100) * 10] += settled
            self._credit -= settled
            self.count -= settled
            if settled < count:
                self._queue.appendleft((came_s, count - settled))


class Simulation:
    """The clock of one run, in ticks."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._dice = random.Random(plan.seed)
        self._cells = [Cell() for _ in range(plan.cells)]
        self._repeats: list[tuple[float, int, int, float, int]] = []  # (due, cell, tries, came, how many)
        self._refused = self._requested = self._asked_while_down = self._refused_first = self._most_waiting = 0
        self._killed, self._others = Counter[int](), Counter[int]()
        self._late_until_s = plan.back_s

    def run(self) -> Found:
        """Run until nothing waits any more."""
        plan, ticks = self._plan, 0
        while (now_s := ticks * TICK_S) < plan.back_s + plan.after_s or self._waiting():
            self._tick(now_s)
            ticks += 1
            if ticks % 500 == 0:
                say(f"{now_s:,.0f} s simulated, {self._refused:,} refused requests wait for their cell")
        return Found(
            requested=self._requested,
            settled=self._killed.total() + self._others.total(),
            refused_share=self._refused_first / max(1, self._asked_while_down),
            most_waiting=self._most_waiting,
            others_p50_s=_quantile_s(self._others, 0.5),
            others_p99_s=_quantile_s(self._others, 0.99),
            killed_p50_s=_quantile_s(self._killed, 0.5),
            killed_p99_s=_quantile_s(self._killed, 0.99),
            caught_up_s=self._late_until_s - plan.back_s,
        )

    def _waiting(self) -> int:
        return self._refused + sum(one.count for one in self._cells)

    def _tick(self, now_s: float) -> None:
        plan = self._plan
        is_down = plan.before_s <= now_s < plan.back_s
        hit = self._cells[: plan.killed]
        for one in hit:
            one.is_up = not is_down
        while self._repeats and self._repeats[0][0] <= now_s:
            _, place, tries, came_s, count = heapq.heappop(self._repeats)
            self._refused -= count
            self._ask(now_s, place, tries, came_s, count)
        for place, one in enumerate(self._cells):
            if now_s < plan.back_s + plan.after_s:
                count = max(0, round(self._dice.gauss(plan.arrivals, math.sqrt(plan.arrivals))))
                self._requested += count
                self._asked_while_down += count * is_down
                self._refused_first += count * (not one.is_up)
                self._ask(now_s, place, 0, now_s, count)
            if one.is_up:
                delays = self._killed if place < plan.killed else self._others
                one.settle(now_s + TICK_S, plan.cell_rate_per_s * TICK_S, delays)
        self._most_waiting = max(self._most_waiting, self._refused + sum(one.count for one in hit))
        is_late = self._refused or any(one.count > plan.arrivals * LATE_TICKS + 1 for one in hit)
        if now_s >= plan.back_s and is_late:
            self._late_until_s = now_s + TICK_S

    def _ask(self, now_s: float, place: int, tries: int, came_s: float, count: int) -> None:
        if self._cells[place].is_up:
            self._cells[place].take(came_s, count)
        elif count:
            self._refused += count
            pause_s = PAUSES_S[min(tries, len(PAUSES_S) - 1)] * self._dice.uniform(0.5, 1.0)
            heapq.heappush(self._repeats, (now_s + pause_s, place, tries + 1, came_s, count))


def _quantile_s(delays_ms: Counter[int], share: float) -> float:
    left = share * delays_ms.total()
    for delay_ms, count in sorted(delays_ms.items()):
        left -= count
        if left <= 0:
            return delay_ms / 1000
    return 0.0


def measured_rate_per_s(report: Path) -> float:
    """Return the payments a second of one cell in a report of `okane bench --only b --json`."""
    figures = json.loads(report.read_text())["parts"]["b"]["figures"]
    return float(next(one["median"] for one in figures if one["name"] == PER_S))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=1_000_000, help="payments a second for all cells [%(default)s]")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--figures", type=Path, help="the report of `okane bench --only b --json` on one cell")
    source.add_argument("--cell-rate", type=float, help="payments a second that one cell settles")
    parser.add_argument("--cells", type=int, help="[as many as use 70 %% of each cell]")
    parser.add_argument("--kill", type=int, default=1, help="cells that are killed at once [%(default)s]")
    parser.add_argument("--down-s", type=float, default=30.0, help="for how long [%(default)s]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    cell_rate = options.cell_rate or measured_rate_per_s(options.figures)
    cells = options.cells or math.ceil(options.rate / (cell_rate * USED))
    if cells > CELLS:
        parser.error(f"{cells:,} cells are needed, and an id has room for the number of {CELLS:,}")
    if not 0 <= options.kill <= cells:
        parser.error(f"--kill is for 0 to {cells} cells")
    plan = Plan(
        cells=cells,
        rate_per_s=options.rate,
        cell_rate_per_s=cell_rate,
        killed=options.kill,
        down_s=options.down_s,
        seed=options.seed,
    )
    found = Simulation(plan).run()
    print(json.dumps(dataclasses.asdict(plan) | dataclasses.asdict(found)) if options.json else rendered(plan, found))


def rendered(plan: Plan, found: Found) -> str:
    return f"""\
cells                            {plan.cells}, {plan.killed} of them down for {plan.down_s:g} s
payments a second                {plan.rate_per_s:,.0f}, and {plan.cell_rate_per_s:,.0f} at most in a cell
requested, settled, lost         {found.requested:,}, {found.settled:,}, {found.requested - found.settled:,}
refused while cells were down    {found.refused_share:.2%} of new payments
waited at most, of those cells   {found.most_waiting:,} payments
p50 and p99 of these cells       {found.killed_p50_s:.2f} s, {found.killed_p99_s:.2f} s
p50 and p99 of the others        {found.others_p50_s:.2f} s, {found.others_p99_s:.2f} s
caught up after their return     {found.caught_up_s:.1f} s"""


if __name__ == "__main__":
    main()
