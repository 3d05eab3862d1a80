"""The dispatchers of a world, started again whenever they die, and the faults."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from tests.simulation.loop import Process, SimulationLoop
from tests.simulation.network import Doom, Link
from tests.simulation.webhooks.processes import DispatcherProcess, Outside
from tests.simulation.webhooks.receivers import Receiver
from tests.simulation.webhooks.scenario import Fault

# The failpoints of a dispatcher are among them: before and after each of these.
REQUESTS: Final = (
    "sequence",
    "read",
    "read_account",
    "lease",
    "renew",
    "send",
    "send",
    "send",
    "write",
    "write",
    "due",
)
_DRAIN_S: Final = 30.0


@dataclass(slots=True)
class Slot:
    """A place for a dispatcher; it may be filled many times."""

    name: str
    process: Process | None = None
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    lives: int = 0


class Nemesis:
    """The dispatchers, and their faults."""

    def __init__(self, loop: SimulationLoop, outside: Outside, dice: Random) -> None:
        self.made: Counter[str] = Counter()
        self._loop = loop
        self._outside = outside
        self._dice = dice
        self._healed = False
        self._slots = [Slot(f"dispatcher-{number}") for number in range(outside.scenario.dispatchers)]
        loop.on_kill = self._killed
        loop.on_continue = outside.audit.continued

    def start(self) -> None:
        """Start all dispatchers, and set a timer for every fault."""
        for slot in self._slots:
            self._fill(slot)
        for fault in self._outside.scenario.faults:
            self._later(fault.at_s, self._strike, fault)

    def heal(self) -> None:
        """End all faults."""
        self._healed = True
        self._outside.postgres.heal()
        self._outside.receivers.heal()
        self._outside.network.dooms.clear()
        for slot in self._slots:
            if slot.process is not None:
                slot.process.fuse = None
                self._loop.continue_process(slot.process)
            self._fill(slot)

    def _fill(self, slot: Slot) -> None:
        if slot.process is not None and slot.process.alive:
            return
        slot.lives += 1
        process = self._loop.new_process(f"{slot.name}.{slot.lives}")
        slot.process, slot.stop = process, asyncio.Event()
        self._loop.start(process, self._live(process, slot.stop))

    async def _live(self, process: Process, stop: asyncio.Event) -> None:
        try:
            await DispatcherProcess(self._outside, name=process.name).run(stop)
        except Exception as error:
            if self._loop.is_closed():
                return
            self._outside.audit.report(f"{process.name} ended with {error!r}: {getattr(error, 'exceptions', '')}")
        self._later(0, self._loop.kill, process)

    def _killed(self, process: Process) -> None:
        self._outside.audit.killed(process)
        for slot in self._slots:
            if slot.process is process and not self._outside.audit.over:
                self._later(0.05 + self._dice.random() ** 2 * 4, self._fill, slot)

    def _someone(self) -> Slot:
        return self._slots[int(self._dice.random() * len(self._slots))]

    def _strike(self, fault: Fault) -> None:
        if self._healed:
            return
        self.made[fault.kind] += 1
        _STRIKES[fault.kind](self, fault)

    def _kill(self, _fault: Fault) -> None:
        slot = self._someone()
        if slot.process is not None:
            self._loop.kill(slot.process)

    def _kill_at_request(self, _fault: Fault) -> None:
        slot = self._someone()
        if slot.process is not None:
            countdown = int(self._dice.random() ** 2 * 4)
            doom = Doom(self._dice.choice(REQUESTS), countdown=countdown, sent=self._dice.random() < 0.6)
            self._outside.network.dooms[slot.process.name] = doom

    def _kill_at_step(self, _fault: Fault) -> None:
        slot = self._someone()
        if slot.process is not None:
            slot.process.fuse = int(self._dice.random() ** 2 * 300)

    def _stop(self, fault: Fault) -> None:
        slot = self._someone()
        if slot.process is not None:
            self._loop.stop_process(slot.process)
            longer_s = self._outside.scenario.lease_s * self._dice.choice((0, 1, 1.5))
            self._later(fault.lasts_s + longer_s, self._loop.continue_process, slot.process)

    def _stop_at_request(self, _fault: Fault) -> None:
        """Stop a dispatcher with a request under way, mostly until another has just taken its queues over."""
        slot = self._someone()
        if slot.process is None:
            return
        stop_s = self._outside.scenario.lease_s * self._dice.choice((0.5, 1 + 0.3 * self._dice.random(), 1.5, 2.5))
        what = self._dice.choice(
            (*REQUESTS, "send", "send", "send")
        )  # then its results come under a lease that is over
        doom = Doom(what, countdown=int(self._dice.random() ** 2 * 3), sent=True, stop_s=stop_s)
        self._outside.network.dooms[slot.process.name] = doom

    def _terminate(self, _fault: Fault) -> None:
        slot = self._someone()
        if slot.process is not None and slot.process.alive:
            self._loop.call_later(0, slot.stop.set, context=self._loop.context(slot.process))
            self._later(_DRAIN_S, self._loop.kill, slot.process)

    def _cut_off(self, fault: Fault) -> None:
        slot = self._someone()
        if slot.process is not None:
            name = slot.process.name
            self._outside.postgres.cut.add(name)
            self._later(fault.lasts_s, self._outside.postgres.cut.discard, name)

    def _down(self, link: Link, fault: Fault) -> None:
        link.down = True
        self._later(fault.lasts_s, setattr, link, "down", False)

    def _lossy(self, link: Link, fault: Fault) -> None:
        link.lose_request, link.lose_reply = (self._dice.choice((0.0, 0.05, 0.3)) for _ in range(2))
        self._later(fault.lasts_s, link.heal)

    def _slow(self, link: Link, fault: Fault) -> None:
        link.slow, link.slow_s = self._dice.choice((0.1, 0.5)), self._dice.choice((0.05, 0.5, 3.0))
        self._later(fault.lasts_s, link.heal)

    def _in_mood(self, fault: Fault, name: str, *chances: float) -> None:
        receiver = self._some_receiver()
        if receiver is not None:
            setattr(receiver.mood, name, self._dice.choice(chances))
            self._later(fault.lasts_s, setattr, receiver.mood, name, 0.0)

    def _at_receiver(self, fault: Fault, strike: Callable[[Nemesis, Link, Fault], None]) -> None:
        receiver = self._some_receiver()
        if receiver is not None:
            strike(self, receiver.link, fault)

    def _some_receiver(self) -> Receiver | None:
        ids = list(self._outside.tables.endpoints)
        return self._outside.receivers.of(self._dice.choice(ids)) if ids else None

    def _later(self, delay_s: float, act: Callable[..., object], *arguments: object) -> None:
        self._outside.network.later(delay_s, act, *arguments)


_STRIKES: Final[dict[str, Callable[[Nemesis, Fault], None]]] = {
    "kill": Nemesis._kill,
    "kill at request": Nemesis._kill_at_request,
    "kill at step": Nemesis._kill_at_step,
    "stop": Nemesis._stop,
    "stop at request": Nemesis._stop_at_request,
    "terminate": Nemesis._terminate,
    "cut off": Nemesis._cut_off,
    "postgres down": lambda self, fault: self._down(self._outside.postgres, fault),
    "postgres lossy": lambda self, fault: self._lossy(self._outside.postgres, fault),
    "postgres slow": lambda self, fault: self._slow(self._outside.postgres, fault),
    "receiver away": lambda self, fault: self._at_receiver(fault, Nemesis._down),
    "receiver lossy": lambda self, fault: self._at_receiver(fault, Nemesis._lossy),
    "receiver refuses": lambda self, fault: self._in_mood(fault, "refuse", 0.3, 1.0),
    "receiver slow": lambda self, fault: self._in_mood(fault, "slow", 0.3, 0.9),
    "receiver silent": lambda self, fault: self._in_mood(fault, "silent", 0.3, 0.9),
    "receiver limits": lambda self, fault: self._in_mood(fault, "limit", 0.3, 0.9),
    "receiver gone": lambda self, fault: self._in_mood(fault, "gone", 0.3),
}
