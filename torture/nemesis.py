"""The nemesis (Jepsen's term) makes the faults of a schedule, a few at a time, and heals each when its time is over.

Order, targets and durations follow the schedule; the start of each depends on the machine: a fault waits until its target is
free of other faults, and only a few are held at once. Others may begin before one that waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set

from torture.faults import FAULTS, Fault
from torture.schedule import Step
from torture.system.cluster import Cluster
from torture.system.tally import FaultTime

AT_ONCE = 3  # held faults; those that strike and are over come on top
WAITING = 8  # steps that may wait for their target while others go ahead
# A fault of one of these affects all processes. One such fault at a time, with a pause after it in which payments proceed:
# a fault without payments in flight proves little.
_SERVERS = frozenset({"postgres", "redis", "provider"})
_REST = 0.5  # of the time that it was held
_POLL_S = 0.1


class Nemesis:
    """Makes faults. `impossible` are those that this machine does not support, with the reason: they stay in the schedule, so
    that a seed means the same on every machine, and are skipped."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        steps: Iterator[Step],
        impossible: Mapping[str, str],
        faults: Mapping[str, Fault] = FAULTS,
    ) -> None:
        self._cluster = cluster
        self._tally = cluster.tally
        self._steps = steps
        self._impossible = impossible
        self._faults = faults
        self._held = asyncio.Semaphore(AT_ONCE)
        self._waiting = asyncio.Semaphore(WAITING)
        self._touched: Counter[str] = Counter()
        self._freed = asyncio.Condition()
        self._over = asyncio.Event()

    async def run(self, enough: Callable[[], bool], *, may_strike: Callable[[], bool] = lambda: True) -> None:
        """Make faults until `enough`, a new one only while it may; all are healed when this returns."""
        async with asyncio.TaskGroup() as making:
            making.create_task(self._end_when(enough))
            for step in self._steps:
                await self._hold(step.pause_s)
                while not (may_strike() or self._over.is_set()):
                    await self._hold(_POLL_S)
                await self._waiting.acquire()
                if self._over.is_set():
                    return
                if step.fault in self._impossible:
                    self._waiting.release()
                else:
                    making.create_task(self._in_turn(self._faults[step.fault], step))
            await self._over.wait()  # there are no faults to make

    async def _end_when(self, enough: Callable[[], bool]) -> None:
        while not enough():  # noqa: ASYNC110 - the counters have no event to wait for
            await asyncio.sleep(_POLL_S)
        self._over.set()

    async def _in_turn(self, fault: Fault, step: Step) -> None:
        touched = frozenset(fault.touches(step, self._cluster.shape))
        touches = set(touched)
        strikes_all = not touches.isdisjoint(_SERVERS)
        touches |= _SERVERS if strikes_all else set()
        try:
            await self._take(fault, touches)
        finally:
            self._waiting.release()
        try:
            if not self._over.is_set():
                await self._make(fault, step, touched)
            if strikes_all:
                await self._hold(step.hold_s * _REST)
        finally:
            await self._release(fault, touches)

    async def _make(self, fault: Fault, step: Step, touched: frozenset[str]) -> None:
        said = f"{fault.name} {step.target}"
        since_s = time.time()
        self._tally.now[step.number] = said
        try:
            async with fault.made(self._cluster, step):
                self._tally.made[fault.name] += 1
                await self._hold(step.hold_s)
        except Exception as error:  # a fault that fails is a finding about this program and goes into the report
            self._tally.failed[said] = f"{type(error).__name__}: {error}"
        finally:
            del self._tally.now[step.number]
            self._tally.times.append(FaultTime(fault=fault.name, touched=touched, since_s=since_s, until_s=time.time()))

    async def _hold(self, seconds: float) -> None:
        """Wait until the time or the end, whichever comes first."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()

    async def _take(self, fault: Fault, touches: Set[str]) -> None:
        if fault.lasting:
            await self._held.acquire()
        async with self._freed:
            await self._freed.wait_for(lambda: not any(self._touched[one] for one in touches))
            self._touched.update(touches)

    async def _release(self, fault: Fault, touches: Set[str]) -> None:
        if fault.lasting:
            self._held.release()
        async with self._freed:
            self._touched.subtract(touches)
            self._freed.notify_all()
