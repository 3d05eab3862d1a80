"""The nemesis: it makes the faults of a scenario happen, restarts what it killed, and heals everything in the end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Final

from tests.simulation.audit_providers import Switch
from tests.simulation.clients import Endpoint
from tests.simulation.loop import Process, SimulationLoop
from tests.simulation.network import Doom, Link
from tests.simulation.processes import ApiProcess, Outside, WorkerProcess
from tests.simulation.provider import ProviderSide
from tests.simulation.redis_client import forget
from tests.simulation.scenario import REFUSALS, Fault
from tests.simulation.store import ProviderRow

AT_WORKER: Final = ("create", "read", "wait", "ack", "promote", "reclaim", "renew", "publish", "inspect")
AT_STORE: Final = (
    *("claim", "claim", "settle_row", "settle_row", "renew_row", "mark_lost", "take_due", "record_late"),
    *("take_late", "late_answered"),
)
AT_PROVIDER: Final = ("charge", "charge", "look_up")
AT_HOLDER: Final = ("claim", "claim", "charge", "charge", "look_up", "settle_row", "renew_row", "read", "renew")
AT_API: Final = ("accept", "publish")
FOR_EVER_S: Final = 10_000.0


@dataclass(slots=True)
class Slot:
    """A place for a process; it may be filled many times."""

    name: str
    is_api: bool
    process: Process | None = None
    program: ApiProcess | WorkerProcess | None = None
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    lives: int = 0


class Nemesis:
    """The processes of one world, and their faults."""

    def __init__(self, loop: SimulationLoop, outside: Outside, redis: Link, dice: Random) -> None:
        scenario = outside.scenario
        self.made: Counter[str] = Counter()
        self._loop = loop
        self._outside = outside
        self._redis = redis
        self._dice = dice
        self._healed = False
        self._slots = [Slot(f"api-{n}", is_api=True) for n in range(scenario.apis)]
        self._slots += [Slot(f"worker-{n}", is_api=False) for n in range(scenario.workers)]
        loop.on_kill = self._killed

    def start(self) -> None:
        """Start all processes, and set a timer for every fault."""
        for slot in self._slots:
            self._fill(slot)
        for fault in self._outside.scenario.faults:
            self._later(fault.at_s, self._strike, fault)
        if self._outside.scenario.refuses is not None:
            self._later(self._dice.random() * 2, self._refuse, self._outside.scenario.refuses)

    def endpoints(self) -> list[Endpoint]:
        """Return the APIs that run."""
        return [
            Endpoint(slot.process, slot.program)
            for slot in self._slots
            if isinstance(slot.program, ApiProcess) and slot.process is not None and slot.process.alive
        ]

    def alive(self) -> list[str]:
        """Return the names of the processes that run."""
        return [slot.process.name for slot in self._slots if slot.process is not None and slot.process.alive]

    def heal(self) -> None:
        """End all faults. Redis may go on refusing: see `permit`."""
        self._healed = True
        if self._outside.scenario.refuses is None:
            self.permit()
        for link in (self._redis, self._outside.postgres, *self._outside.provider_links.values()):
            link.heal()
        for name in self._outside.banks:
            self._switch_on(name)
        self._outside.broker.server.full = False
        self._calm_provider()
        self._outside.network.dooms.clear()
        for slot in self._slots:
            if slot.process is not None:
                slot.process.fuse = None
                self._loop.continue_process(slot.process)
            self._fill(slot)

    def permit(self) -> None:
        """End the refusals of Redis."""
        self._outside.broker.server.refusal = None
        self._outside.broker.wake_all()

    # Processes

    def _fill(self, slot: Slot) -> None:
        """Start the process, unless it runs."""
        if slot.process is not None and slot.process.alive:
            return
        slot.lives += 1
        stable = self._outside.scenario.stable_names
        process = self._loop.new_process(slot.name if stable else f"{slot.name}.{slot.lives}")
        slot.process, slot.stop = process, asyncio.Event()
        program = (
            ApiProcess(self._outside, name=process.name)
            if slot.is_api
            else WorkerProcess(self._outside, name=process.name)
        )
        slot.program = program
        self._loop.start(process, self._live(slot, process, program, slot.stop))

    async def _live(
        self, slot: Slot, process: Process, program: ApiProcess | WorkerProcess, stop: asyncio.Event
    ) -> None:
        try:
            await program.run(stop)
        except Exception as error:
            if self._loop.is_closed():
                return
            self._outside.audit.report(f"{process.name} ended with {error!r}: {getattr(error, 'exceptions', '')}")
        self._later(0, self._loop.kill, process)  # it has ended: nothing of it runs any more

    def _killed(self, process: Process) -> None:
        self._later(self._dice.random() * 0.01, forget, self._outside.broker, process)
        for slot in self._slots:
            if slot.process is process and not self._outside.audit.over:
                self._later(0.05 + self._dice.random() ** 2 * 4, self._fill, slot)

    def _someone(self, *, api: bool | None = None) -> Slot:
        slots = [slot for slot in self._slots if api is None or slot.is_api is api]
        return slots[int(self._dice.random() * len(slots))]

    # Faults

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
        slot = self._someone(api=False if self._dice.random() < 0.8 else None)
        if slot.process is None:
            return
        kinds = (AT_API,) if slot.is_api else (AT_WORKER, AT_STORE, AT_STORE, AT_PROVIDER)
        what = self._dice.choice(self._dice.choice(kinds))
        doom = Doom(what, countdown=int(self._dice.random() ** 2 * 4), sent=self._dice.random() < 0.6)
        self._outside.network.dooms[slot.process.name] = doom

    def _stop_at_request(self, _fault: Fault) -> None:
        slot = self._someone(api=False)
        if slot.process is None:
            return
        # Mostly it goes on when another has just taken over what it held.
        leases = self._dice.choice((1 + 0.25 * self._dice.random(), 0.8 + self._dice.random()))
        what = self._dice.choice(AT_HOLDER)
        stop_s = self._outside.scenario.lease.total_seconds() * leases
        if self._dice.random() < 0.6:  # so that the other is still at it then
            self._some_bank().mood.slow = 0.7
            self._later(2 * stop_s, self._calm_provider)
        doom = Doom(what, countdown=int(self._dice.random() ** 2 * 3), sent=True, stop_s=stop_s)
        self._outside.network.dooms[slot.process.name] = doom

    def _kill_at_step(self, _fault: Fault) -> None:
        slot = self._someone(api=False if self._dice.random() < 0.8 else None)
        if slot.process is not None:
            slot.process.fuse = int(self._dice.random() ** 2 * 300)

    def _stop(self, fault: Fault) -> None:
        slot = self._someone()
        if slot.process is not None:
            self._loop.stop_process(slot.process)
            longer_s = self._outside.scenario.lease.total_seconds() * self._dice.choice((0, 0, 1.5, 2.5))
            self._later(fault.lasts_s + longer_s, self._loop.continue_process, slot.process)

    def _terminate(self, fault: Fault) -> None:
        slot = self._someone()
        if slot.process is not None and slot.process.alive:
            stop = slot.stop
            self._loop.call_later(0, stop.set, context=self._loop.context(slot.process))
            # A process that does not end in time is killed.
            self._later(self._outside.scenario.drain.total_seconds() + 30, self._loop.kill, slot.process)

    def _cut_off(self, fault: Fault) -> None:
        slot = self._someone()
        link = self._dice.choice((self._redis, self._outside.postgres, *self._outside.provider_links.values()))
        if slot.process is not None:
            name = slot.process.name
            link.cut.add(name)
            self._later(fault.lasts_s, link.cut.discard, name)

    def _redis_down(self, fault: Fault) -> None:
        self._redis.down = True
        self._outside.broker.hang_up()
        if self._dice.random() < 0.3:
            self._outside.broker.server.scripts.clear()
        self._later(fault.lasts_s, self._up, self._redis)

    def _redis_flushed(self, _fault: Fault) -> None:
        self._outside.broker.server.flush()
        self._outside.broker.wake_all()

    def _redis_failover(self, fault: Fault) -> None:
        replica = self._outside.broker.server.snapshot()

        def take_over() -> None:
            self._outside.broker.server.restore(replica)
            self._up(self._redis)

        def fall() -> None:
            self._redis.down = True
            self._outside.broker.hang_up()
            self._later(fault.lasts_s * 0.3, take_over)

        # What is written from here to the fall never reaches the replica.
        self._later(self._dice.choice((0.001, 0.02, 0.3)), fall)

    def _redis_full(self, fault: Fault) -> None:
        server = self._outside.broker.server
        server.full = True
        self._later(fault.lasts_s, setattr, server, "full", False)

    def _redis_refuses(self, fault: Fault) -> None:
        if self._outside.scenario.refuses is None:
            self._refuse(self._dice.choice(list(REFUSALS)))
            self._later(fault.lasts_s, self.permit)

    def _refuse(self, what: str) -> None:
        self.made[f"redis refuses {what}"] += 1
        self._outside.broker.server.refusal = REFUSALS[what]

    def _lossy(self, link: Link, fault: Fault) -> None:
        request, reply, linger = (self._dice.choice((0.0, 0.05, 0.3)) for _ in range(3))
        link.lose_request, link.lose_reply = request, reply
        link.linger = linger * 0.3 if link.name not in self._outside.banks else 0.0
        self._later(fault.lasts_s, link.heal)

    def _slow(self, link: Link, fault: Fault) -> None:
        link.slow, link.slow_s = self._dice.choice((0.1, 0.5)), self._dice.choice((0.05, 0.5, 3.0))
        self._later(fault.lasts_s, link.heal)

    def _postgres_down(self, fault: Fault) -> None:
        self._outside.postgres.down = True
        self._later(fault.lasts_s, self._up, self._outside.postgres)

    def _postgres_busy(self, fault: Fault) -> None:
        self._outside.postgres.busy = self._dice.choice((0.1, 0.5))
        self._later(fault.lasts_s, self._outside.postgres.heal)

    def _provider_refuses(self, fault: Fault) -> None:
        self._some_bank().mood.refuse = self._dice.choice((0.5, 1.0))
        self._later(fault.lasts_s, self._calm_provider)

    def _provider_slow(self, fault: Fault) -> None:
        self._some_bank().mood.slow = self._dice.choice((0.3, 0.8))
        self._later(fault.lasts_s, self._calm_provider)

    def _provider_holds(self, fault: Fault) -> None:
        """Hold some requests back for longer than their senders wait; refuse most of the later ones."""
        mood = self._some_bank().mood
        mood.hold, mood.refuse = self._dice.choice((0.3, 0.8)), self._dice.choice((0.6, 1.0))
        self._later(fault.lasts_s, self._calm_provider)

    def _provider_limits(self, fault: Fault) -> None:
        self._some_bank().mood.limit = self._dice.choice((0.5, 1.0))
        self._later(fault.lasts_s, self._calm_provider)

    def _provider_fails(self, fault: Fault) -> None:
        self._some_bank().mood.fail = self._dice.choice((0.3, 0.9))
        self._later(fault.lasts_s, self._calm_provider)

    def _provider_away(self, fault: Fault) -> None:
        link = self._outside.provider_links[self._some_bank().name]
        link.down = True
        self._later(fault.lasts_s, self._up, link)

    def _provider_switched(self, fault: Fault) -> None:
        """Switch a provider off, or drain it, and on again."""
        name, mode = self._some_bank().name, self._dice.choice(("off", "drain"))
        row = self._provider_row(name)
        if row.mode == "on":
            row.mode = mode
            switch = Switch(name, self._outside.database.now(), drained=mode == "drain")
            self._outside.audit.switches.append(switch)
            self._later(fault.lasts_s, self._switch_on, name)

    def _switch_on(self, name: str) -> None:
        self._provider_row(name).mode = "on"
        self._outside.audit.switched_on(name)

    def _circuit_open(self, fault: Fault) -> None:
        """Open the circuit of a provider for all workers."""
        until = self._outside.database.now() + timedelta(seconds=fault.lasts_s)
        self._provider_row(self._some_bank().name).open_until = until

    def _provider_row(self, name: str) -> ProviderRow:
        return self._outside.database.providers.setdefault(name, ProviderRow())

    def _some_bank(self) -> ProviderSide:
        """Return a provider."""
        banks = list(self._outside.banks.values())
        return banks[int(self._dice.random() * len(banks))] if len(banks) > 1 else banks[0]

    def _calm_provider(self) -> None:
        for bank in self._outside.banks.values():
            bank.mood.calm()

    def _up(self, link: Link) -> None:
        link.down = False

    def _later(self, delay_s: float, act: Callable[..., object], *arguments: object) -> None:
        self._outside.network.later(delay_s, act, *arguments)


_STRIKES: Final[dict[str, Callable[[Nemesis, Fault], None]]] = {
    "kill": Nemesis._kill,
    "kill at request": Nemesis._kill_at_request,
    "stop at request": Nemesis._stop_at_request,
    "kill at step": Nemesis._kill_at_step,
    "stop": Nemesis._stop,
    "terminate": Nemesis._terminate,
    "cut off": Nemesis._cut_off,
    "redis down": Nemesis._redis_down,
    "redis flushed": Nemesis._redis_flushed,
    "redis failover": Nemesis._redis_failover,
    "redis full": Nemesis._redis_full,
    "redis lossy": lambda self, fault: self._lossy(self._redis, fault),
    "redis refuses": Nemesis._redis_refuses,
    "redis slow": lambda self, fault: self._slow(self._redis, fault),
    "postgres down": Nemesis._postgres_down,
    "postgres lossy": lambda self, fault: self._lossy(self._outside.postgres, fault),
    "postgres slow": lambda self, fault: self._slow(self._outside.postgres, fault),
    "postgres busy": Nemesis._postgres_busy,
    "provider lossy": lambda self, fault: self._lossy(self._outside.provider_links[self._some_bank().name], fault),
    "provider refuses": Nemesis._provider_refuses,
    "provider slow": Nemesis._provider_slow,
    "provider holds": Nemesis._provider_holds,
    "provider limits": Nemesis._provider_limits,
    "provider fails": Nemesis._provider_fails,
    "provider away": Nemesis._provider_away,
    "provider switched": Nemesis._provider_switched,
    "circuit open": Nemesis._circuit_open,
}
