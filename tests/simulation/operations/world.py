"""One run with captures, voids and refunds: the world of payments, with a bank that executes operations."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from random import Random

from tests.simulation.audit import Audit
from tests.simulation.clients import Clients
from tests.simulation.operations.audit import OperationAudit
from tests.simulation.operations.bank import OperatingBank
from tests.simulation.operations.merchants import Merchants
from tests.simulation.operations.parts import OPERATIONS_STREAM
from tests.simulation.operations.tables import OperationTables
from tests.simulation.processes import GROUP, Outside
from tests.simulation.provider import Bank, ProviderSide
from tests.simulation.scenario import Fault, Scenario, scenario
from tests.simulation.world import Result, World

LATER = (*("stop at request",) * 4, "kill at request", "kill at step", "kill")
SHORT_DEADLINE = 0.3  # of the worlds: an operation whose outcome stays open needs a review soon
FIRST_SEED = 1_000_000  # of the scenarios, so that they are not those of the payments' runs


def run(seed: int, *, verbose: bool = False) -> Result:
    """Run one seed to its end."""
    return replace(OperationWorld(operation_scenario(seed), verbose=verbose).run(), seed=seed)


def operation_scenario(seed: int) -> Scenario:
    """Return the scenario of a seed: one of the payments', at one provider, without poison."""
    dice, plan = Random(f"operations {seed}"), scenario(FIRST_SEED + seed)
    # They come when most payments are charged, and their operations are executed.
    more = dice.choice((0, 2, 4)) if plan.faults else 0
    later = (Fault(dice.choice(LATER), at_s=0.5 + 6 * dice.random(), lasts_s=1.0) for _ in range(more))
    return replace(
        plan,
        faults=(*plan.faults, *later),
        payments=dice.randint(3, 9),
        providers=("simulated",),
        poison=None,
        unknown_deadline=timedelta(seconds=4) if dice.random() < SHORT_DEADLINE else timedelta(days=1),
        pending_deadline=timedelta(days=1),
    )


class OperationWorld(World):
    """Everything of one run."""

    _audit: OperationAudit

    def _make_audit(self) -> Audit:
        self._tables = OperationTables(self._database)
        audit = OperationAudit(
            self._database,
            self._stream,
            group=GROUP,
            lease=self._plan.lease,
            key_lifetime_s={},
            operations_stream=OPERATIONS_STREAM,
        )
        audit.tables = self._tables
        return audit

    def _make_outside(self) -> Outside:
        return replace(super()._make_outside(), operations=self._tables)

    def _make_bank(self, dice: Random, *, lag_s: float, patience_s: float) -> Bank:
        hold_s = Random(f"holds {self._plan.seed}").choice((8.0, 15.0, 30.0))
        bank = OperatingBank(self._network, dice, lag_s=lag_s, patience_s=patience_s, hold_s=hold_s)
        if self._plan.faults and self._plan.seed % 3 == 0:
            bank.stall_s = self._plan.lease.total_seconds()
        return bank

    def _listen(self, bank: ProviderSide) -> None:
        super()._listen(bank)
        assert isinstance(bank, OperatingBank)
        self._audit.bank = bank
        bank.notify = lambda move: self._tables.notice(
            move.made_by, is_refusal=move.status == "failed", grace=self._plan.grace
        )
        bank.on_operate = self._audit.operated
        bank.on_operation_look_up = self._audit.operation_looked_up
        bank.on_operation_answer = self._audit.operation_answered

    def _make_clients(self) -> Clients:
        self._merchants = Merchants(
            self._network,
            Random(f"clients {self._plan.seed}"),
            self._audit,
            self._nemesis.endpoints,
            providers=self._plan.providers,
            seed=self._plan.seed,
        )
        return self._merchants

    async def _arrivals(self) -> None:
        """Wait for the merchants, too, who act once their payments can be captured or refunded."""
        while self._merchants.acting:
            await asyncio.wait(list(self._merchants.acting))
            done = {one for one in self._merchants.acting if one.done()}
            self._merchants.acting -= done
            for one in done:
                one.result()
