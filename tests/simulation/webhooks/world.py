"""One run: a seed becomes a world of dispatchers, receivers, accounts and faults; its result is a list of violations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Final

from tests.simulation.loop import SimulationLoop, Stuck
from tests.simulation.network import Link, Network
from tests.simulation.webhooks.audit import WebhookAudit
from tests.simulation.webhooks.nemesis import Nemesis
from tests.simulation.webhooks.owners import Owners
from tests.simulation.webhooks.processes import Outside, simulated_parts
from tests.simulation.webhooks.receivers import Receivers
from tests.simulation.webhooks.scenario import Scenario, scenario
from tests.simulation.webhooks.tables import Tables
from tests.simulation.world import Result, in_virtual_time, judging_logs

REST_S: Final = 900.0  # virtual; the longest probe of a breaker is after 300 s
EXPECTED: Final = ("webhook_queue_lost",)  # errors that are the answer to a fault


def run(seed: int, *, verbose: bool = False) -> Result:
    """Run one seed to its end."""
    return World(scenario(seed), verbose=verbose).run()


class World:
    """Everything of one run."""

    def __init__(self, plan: Scenario, *, verbose: bool = False) -> None:
        self._plan = plan
        self._loop = loop = SimulationLoop(Random(f"loop {plan.seed}"))  # type: ignore[abstract] # the loop implements what asyncio calls
        self._tables = Tables(loop.wall_s)
        self._audit = WebhookAudit(self._tables)
        self._network = Network(loop, Random(f"network {plan.seed}"))
        receivers = Receivers(self._network, self._tables, self._audit, Random(f"receivers {plan.seed}"))
        outside = Outside(
            scenario=plan,
            network=self._network,
            postgres=Link("postgres"),
            tables=self._tables,
            receivers=receivers,
            audit=self._audit,
        )
        self._owners = Owners(plan, self._tables, self._audit, Random(f"owners {plan.seed}"))
        self._nemesis = Nemesis(loop, outside, Random(f"nemesis {plan.seed}"))
        self._trace: list[str] = []
        if verbose:
            self._network.trace = lambda process, link, what: self._trace.append(
                f"{loop.time() - 1000:10.4f} {process.name:16} {link} {what}"
            )

    def run(self) -> Result:
        """Run until everything is at rest, or until long after it should be."""
        started_s = self._loop.time()
        with in_virtual_time(self._loop, self._plan.seed), judging_logs(self._loop, self._judge), simulated_parts():
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
            payments=self._plan.payments,
            simulated_s=self._loop.time() - started_s,
            faults=self._nemesis.made + self._network.faults,
            repairs=self._audit.repairs,
            trace=tuple(self._trace),
        )

    async def _main(self) -> None:
        self._nemesis.start()
        owning = asyncio.ensure_future(self._owners.run())
        ends = [fault.at_s + fault.lasts_s for fault in self._plan.faults]
        await asyncio.sleep(max([self._plan.arrivals_s, *ends]) + 0.5)
        self._nemesis.heal()
        await owning
        await self._rest(self._tables.is_at_rest)
        self._audit.conclude()
        self._audit.found += self._loop.unnoticed_failures()
        self._audit.over = True

    async def _rest(self, at_rest: Callable[[], bool]) -> None:
        """Wait until it is `at_rest`, up to the deadline for it."""
        deadline_s = self._loop.time() + REST_S
        while not at_rest() and self._loop.time() < deadline_s and not self._audit.found:
            self._owners.enable_all()
            await asyncio.sleep(0.25)

    def _judge(self, event: str, about: object) -> None:
        if not any(one in event for one in EXPECTED):
            self._audit.report(f"the dispatcher logs: {event} ({about!r})")
