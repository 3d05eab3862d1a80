"""One run: a seed becomes a world of processes, servers, clients and faults; its result is a list of violations."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any

import structlog

from okane.lanes import payments_stream
from tests.simulation.audit import Audit
from tests.simulation.clients import Clients
from tests.simulation.loop import Process, SimulationLoop, Stuck
from tests.simulation.nemesis import Nemesis
from tests.simulation.network import Link, Network
from tests.simulation.processes import GROUP, POISONED, Outside
from tests.simulation.provider import Bank, Mood, ProviderSide
from tests.simulation.redis import Server
from tests.simulation.redis_client import Broker
from tests.simulation.scenario import Scenario, scenario
from tests.simulation.store import MemoryDatabase
from tests.simulation.stripe_gateway import StripeGateway

# An error of the pipeline is a violation, but for these: each is the answer to a fault.
EXPECTED = (
    "poison:",
    "its handler was cancelled",
    "provider_adapter_failed",
    "stays pending: no answer",
    "stays pending: connection re",
    "stays pending: OOM",
    "stays pending: NOPERM",
    "running_without_redis",
    "redis_lost",
    "redis_back",
    "circuit_opened",
    "circuit_closed",
)


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one seed."""

    seed: int
    found: tuple[str, ...]
    digest: str
    payments: int
    simulated_s: float
    faults: Counter[str]
    repairs: Counter[str]
    trace: tuple[str, ...] = field(default=(), repr=False)


def run(seed: int, *, verbose: bool = False) -> Result:
    """Run one seed to its end."""
    return World(scenario(seed), verbose=verbose).run()


class World:
    """Everything of one run."""

    def __init__(self, plan: Scenario, *, verbose: bool = False) -> None:
        self._plan = plan
        self._loop = loop = SimulationLoop(Random(f"loop {plan.seed}"))  # type: ignore[abstract] # the loop implements what asyncio calls
        self._database = MemoryDatabase(loop.wall_s)
        self._stream = payments_stream("simulated")
        self._audit = self._make_audit()
        self._network = Network(loop, Random(f"network {plan.seed}"))
        self._redis = Link("redis")
        self._server = Server(loop.wall_s, self._audit)
        self._broker = Broker(self._server, self._network, self._redis, self._audit)
        self._banks = self._make_banks()
        self._outside = self._make_outside()
        self._nemesis = Nemesis(loop, self._outside, self._redis, Random(f"nemesis {plan.seed}"))
        self._trace: list[str] = []
        if verbose:
            self._network.trace = self._note

    def run(self) -> Result:
        """Run until everything is at rest, or until long after it should be."""
        started_s = self._loop.time()
        with in_virtual_time(self._loop, self._plan.seed), judging_logs(self._loop, partial(_judge, self._audit)):
            try:
                self._loop.run(self._main())
            except Stuck as stuck:
                self._audit.report(str(stuck))
        for error in self._loop.errors:
            self._audit.report(error)
        return Result(
            seed=self._plan.seed,
            found=tuple(self._audit.found),
            digest=f"{self._loop.digest:016x}-{self._loop.steps}",
            payments=len(self._database.payments),
            simulated_s=self._loop.time() - started_s,
            faults=self._nemesis.made + self._network.faults,
            repairs=self._audit.repairs,
            trace=tuple(self._trace),
        )

    async def _main(self) -> None:
        self._nemesis.start()
        clients = self._make_clients()
        for bank in self._banks.values():
            if isinstance(bank, StripeGateway):
                bank.notify = clients.notify
        asking = asyncio.ensure_future(clients.run(self._plan.payments, self._plan.arrivals_s))
        await asyncio.sleep(self._trouble_s())
        self._nemesis.heal()
        await asking
        await self._arrivals()
        if self._plan.refuses is not None:
            await self._rest(self._audit.payments_rest)
            self._audit.check_rest_without_redis(self._plan.refuses)
            self._nemesis.permit()
        await self._rest(lambda: self._audit.settled(self._server))
        self._audit.conclude(self._server, [one for bank in self._banks.values() for one in bank.charges()])
        if self._loop.unnoticed_failures():
            await asyncio.sleep(15)  # a task that gathers several may still be waiting for the others
            self._audit.found += self._loop.unnoticed_failures()
        if self._plan.quiet_provider and not (self._plan.faults or self._plan.poison or self._plan.refuses):
            self._audit.check_unrepaired()
        if self._plan.spares_innocents:
            self._audit.check_innocents(POISONED)
        if self._plan.tidy and not self._audit.found:
            await asyncio.sleep(self._plan.lease.total_seconds() * 2 + 12)
            self._audit.check_consumers(self._server, self._nemesis.alive())
        self._audit.over = True

    async def _arrivals(self) -> None:
        """Wait for what clients do after their payments were accepted."""

    async def _rest(self, at_rest: Callable[[], bool]) -> None:
        """Wait until it is `at_rest`, up to the deadline for it."""
        deadline_s = self._loop.time() + self._plan.lease.total_seconds() * 20 + 900
        while not at_rest() and self._loop.time() < deadline_s and not self._audit.found:
            self._audit.check_groups(self._server)
            await asyncio.sleep(0.25)

    def _trouble_s(self) -> float:
        """Return how long the faults last."""
        ends = [fault.at_s + fault.lasts_s for fault in self._plan.faults]
        return max([self._plan.arrivals_s, *ends]) + 0.5

    def _make_audit(self) -> Audit:
        return Audit(
            self._database,
            self._stream,
            group=GROUP,
            lease=self._plan.lease,
            key_lifetime_s={StripeGateway.name: self._plan.key_lifetime.total_seconds()},
        )

    def _make_outside(self) -> Outside:
        return Outside(
            scenario=self._plan,
            stream=self._stream,
            network=self._network,
            postgres=Link("postgres"),
            provider_links={name: Link(name) for name in self._banks},
            database=self._database,
            broker=self._broker,
            banks=self._banks,
            audit=self._audit,
        )

    def _make_clients(self) -> Clients:
        return Clients(
            self._network,
            Random(f"clients {self._plan.seed}"),
            self._audit,
            self._nemesis.endpoints,
            providers=self._plan.providers,
        )

    def _make_banks(self) -> dict[str, ProviderSide]:
        """Return the providers of this world, by name."""
        plan = self._plan
        lag_s, patience_s = plan.consistency_lag.total_seconds(), plan.provider_timeout.total_seconds()
        banks: list[ProviderSide] = []
        if Bank.name in plan.providers:
            banks.append(self._make_bank(Random(f"bank {plan.seed}"), lag_s=lag_s, patience_s=patience_s))
        if StripeGateway.name in plan.providers:
            banks.append(
                StripeGateway(
                    self._network,
                    Random(f"stripe {plan.seed}"),
                    lag_s=lag_s,
                    patience_s=patience_s,
                    key_s=plan.key_kept.total_seconds(),
                )
            )
        for bank in banks:
            if plan.quiet_provider:
                bank.mood = Mood(refuse=0, slow=0, break_adapter=0, limit=0, fail=0)
            self._listen(bank)
        return {bank.name: bank for bank in banks}

    def _make_bank(self, dice: Random, *, lag_s: float, patience_s: float) -> Bank:
        return Bank(self._network, dice, lag_s=lag_s, patience_s=patience_s)

    def _listen(self, bank: ProviderSide) -> None:
        """Let the audit see the calls of a provider."""
        bank.on_charge = self._audit.charged
        bank.on_look_up = self._audit.looked_up
        bank.on_answer = self._audit.answered
        bank.on_release = self._audit.released
        bank.on_mismatch = self._audit.report

    def _note(self, process: Process, *words: str) -> None:
        self._trace.append(f"{self._loop.time() - 1000:10.4f} {process.name:12} {' '.join(words)}")


@contextlib.contextmanager
def in_virtual_time(loop: SimulationLoop, seed: int) -> Iterator[None]:
    """Give the pipeline the clocks and the dice of the simulation inside the block."""
    clock = SimpleNamespace(monotonic=loop.time, perf_counter=loop.time, time=loop.wall_s)
    modules = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith(("okane.", "streams.", "tests.simulation.store")) and getattr(module, "time", None) is time
    ]
    state = random.getstate()
    random.seed(f"product {seed}")
    for module in modules:
        module.time = clock  # type: ignore[attr-defined] # a module of any name
    try:
        yield
    finally:
        for module in modules:
            module.time = time  # type: ignore[attr-defined] # a module of any name
        random.setstate(state)


@contextlib.contextmanager
def judging_logs(loop: SimulationLoop, judge: Callable[[str, object], None]) -> Iterator[None]:
    """Judge each error that the pipeline logs inside the block; drop all other lines.

    Lines after the end of the run are dropped, too: coroutines that had not ended are closed then, for example in a
    `finally`.
    """

    def judge_event(_logger: object, _method: str, event: Any) -> Any:
        if not loop.is_closed():
            judge(str(event.get("event")), event)
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(
        processors=[judge_event],
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        cache_logger_on_first_use=False,
    )
    log = logging.getLogger("streams")
    handler = _LogHandler(judge, loop)
    level, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.ERROR)
    log.propagate = False
    try:
        yield
    finally:
        structlog.configure(**before)
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


class _LogHandler(logging.Handler):
    """A handler for the library's log."""

    def __init__(self, judge: Callable[[str, object], None], loop: SimulationLoop) -> None:
        super().__init__(logging.ERROR)
        self._judge = judge
        self._loop = loop

    def emit(self, record: logging.LogRecord) -> None:
        if self._loop.is_closed():
            return
        text = record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        self._judge(text, error)


def _judge(audit: Audit, text: str, about: object) -> None:
    audit.repairs["circuits opened"] += text == "circuit_opened"
    audit.repairs["circuits opened for all"] += text == "circuit_opened_for_all"
    if not any(each in text for each in EXPECTED):
        audit.report(f"the pipeline logs: {text} ({about!r})")
