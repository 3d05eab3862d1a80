"""The nemesis keeps the faults of a schedule in order and apart."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import cast

from torture.faults.fault import Fault
from torture.nemesis import AT_ONCE, Nemesis
from torture.schedule import Step
from torture.system.cluster import Cluster
from torture.system.shape import Shape
from torture.system.tally import Tally

SHAPE = Shape(apis=("api-1",), workers=("worker-1", "worker-2"))


class Scene:
    """Faults that record their targets and times, and an empty cluster."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.shape = SHAPE
        self.struck: Counter[str] = Counter()
        self.most_at_once = 0
        self.healed = 0
        self.violations: list[str] = []

    def fault(self, name: str, *, hold_s: float = 0.0, fails: bool = False) -> Fault:
        @contextlib.asynccontextmanager
        async def made(_cluster: Cluster, step: Step) -> AsyncIterator[None]:
            if fails:
                raise OSError("no such luck")
            if self.struck[step.target]:
                self.violations.append(f"{step.target} is struck twice")
            self.struck[step.target] += 1
            held = sum(self.struck.values())
            self.most_at_once = max(self.most_at_once, held)
            try:
                yield
            finally:
                self.struck[step.target] -= 1
                self.healed += 1

        return Fault(name=name, meaning="", targets=lambda _shape: (), made=made, hold_s=(hold_s, hold_s))

    async def play(self, *faults: Fault, steps: Sequence[Step], impossible: dict[str, str] | None = None) -> None:
        """Make all of these steps."""
        nemesis = Nemesis(
            cluster=cast("Cluster", self),
            steps=iter(steps),
            impossible=impossible or {},
            faults={fault.name: fault for fault in faults},
        )
        passed = len([step for step in steps if step.fault not in (impossible or {})])
        async with asyncio.timeout(30):
            await nemesis.run(lambda: self.healed + len(self.tally.failed) >= passed)


def held(count: int, targets: Sequence[str], fault: str = "hold") -> list[Step]:
    return [
        Step(number=number, pause_s=0, fault=fault, target=targets[number % len(targets)], hold_s=0.03, roll=0)
        for number in range(count)
    ]


async def test_nobody_is_struck_by_two_faults_at_once() -> None:
    stage = Scene()
    await stage.play(stage.fault("hold", hold_s=0.03), steps=held(20, ("a", "b")))
    assert stage.violations == []
    assert stage.healed == 20
    assert stage.most_at_once == 2


async def test_a_few_faults_are_held_at_once_and_all_are_healed() -> None:
    stage = Scene()
    await stage.play(stage.fault("hold", hold_s=0.03), steps=held(30, [f"t{number}" for number in range(30)]))
    assert 2 <= stage.most_at_once <= AT_ONCE
    assert stage.struck.total() == 0
    assert stage.tally.made == {"hold": 30}
    assert stage.tally.now == {}


async def test_servers_that_everybody_needs_are_struck_one_at_a_time() -> None:
    stage = Scene()
    await stage.play(stage.fault("hold", hold_s=0.03), steps=held(9, ("redis", "postgres", "provider")))
    assert stage.most_at_once == 1


async def test_a_fault_that_goes_wrong_is_told_and_stops_nothing() -> None:
    stage = Scene()
    plan = [*held(1, ("a",), "broken"), *held(3, ("a",))]
    await stage.play(stage.fault("hold", hold_s=0.03), stage.fault("broken", fails=True), steps=plan)
    assert stage.tally.failed == {"broken a": "OSError: no such luck"}
    assert stage.healed == 3


async def test_what_the_machine_cannot_have_is_passed_over() -> None:
    stage = Scene()
    plan = [*held(5, ("a",), "impossible"), *held(2, ("a",))]
    await stage.play(stage.fault("hold", hold_s=0.03), steps=plan, impossible={"impossible": "no root"})
    assert stage.tally.made == {"hold": 2}


async def test_no_fault_begins_while_none_may_strike() -> None:
    stage, looked = Scene(), 0

    def may_strike() -> bool:
        nonlocal looked
        looked += 1
        return looked % 3 == 0 or stage.healed == 0

    nemesis = Nemesis(
        cluster=cast("Cluster", stage),
        steps=iter(held(3, ("a",))),
        impossible={},
        faults={"hold": stage.fault("hold", hold_s=0.03)},
    )
    async with asyncio.timeout(30):
        await nemesis.run(lambda: stage.healed == 3 or looked > 100, may_strike=may_strike)
    assert stage.healed == 3
    assert looked >= 3


async def test_a_run_ends_also_while_no_fault_may_strike() -> None:
    stage = Scene()
    nemesis = Nemesis(
        cluster=cast("Cluster", stage),
        steps=iter(held(3, ("a",))),
        impossible={},
        faults={"hold": stage.fault("hold", hold_s=0.03)},
    )
    looked = 0

    def may_not_strike() -> bool:
        nonlocal looked
        looked += 1
        return False

    async with asyncio.timeout(30):
        await nemesis.run(lambda: looked > 2, may_strike=may_not_strike)
    assert stage.healed == 0
