"""The people who retry failed operations and decide those that need a review: at once, twice, and where they must not."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any
from uuid import UUID

from okane.errors import OperationRefused, StatusConflict, StoreUnavailable
from okane.operation import OperationStatus
from tests.simulation.network import NoAnswer, NotSent
from tests.simulation.operations.bank import OperatingBank
from tests.simulation.operations.tables import OperationRow, OperationTables

OPERATOR = "operator"
LOOKS, PAUSE_S = 30, 1.0  # at the operations of a payment
RETRIED, RESOLVED, MISTAKEN = 0.5, 0.4, 0.05  # of the looks that find an operation to do it to
MAX_ACTIONS = 4  # of one payment

_S = OperationStatus


class Operators:
    """The operators of a world. `ask` sends one request to an API."""

    def __init__(
        self,
        tables: OperationTables,
        bank: OperatingBank,
        ask: Callable[[Callable[[Any], Any]], Any],
        repairs: Counter[str],
        *,
        seed: int,
    ) -> None:
        self._tables = tables
        self._bank = bank
        self._ask = ask
        self._repairs = repairs
        self._dice = Random(f"operators {seed}")

    async def attend(self, payment_id: UUID) -> None:
        """Look after the operations of a payment until they have come to rest, and nothing is left to do."""
        left = MAX_ACTIONS
        for _ in range(LOOKS):
            rows = self._tables.of_payment(payment_id)
            for row in rows:
                left -= left > 0 and await self._act(row)
            failed = any(row.status in (_S.FAILED_FINAL, _S.NEEDS_REVIEW) for row in rows)
            if all(row.status.is_at_rest for row in rows) and not (failed and left):
                return
            await asyncio.sleep(PAUSE_S)

    async def _act(self, row: OperationRow) -> bool:
        """Do what an operator does about an operation; return whether there was a clear answer."""
        roll = self._dice.random()
        match row.status:
            case _S.FAILED_FINAL | _S.FAILED_RETRYABLE if roll < RETRIED:
                return await self._retry(row)
            case _S.NEEDS_REVIEW if roll < RESOLVED:
                return await self._resolve(row)
            case _ if roll < MISTAKEN:
                return await self._retry(row)
        return False

    async def _retry(self, row: OperationRow) -> bool:
        version = self._dice.choice((None, row.version))
        return await self._done(
            f"{row.kind} retried",
            lambda api: api.operations.retry(row.id, account_id=None, actor=OPERATOR, version=version),
        )

    async def _resolve(self, row: OperationRow) -> bool:
        """Decide what the books of the bank say, once they say it for good."""
        moves = [one for one in self._bank.moves.values() if one.made_by == row.id]
        if any(one.status == "pending" for one in moves):
            return False
        moved = [one for one in moves if one.status == "succeeded"]
        return await self._done(
            f"{row.kind} resolved",
            lambda api: api.operations.resolve(
                row.id,
                account_id=None,
                decision=_S.SUCCESS if moved else _S.FAILED_FINAL,
                reason="seen in the books",
                provider_ref=moved[0].ref if moved else None,
                actor=OPERATOR,
            ),
        )

    async def _done(self, what: str, request: Callable[[Any], Any]) -> bool:
        try:
            await self._ask(request)
        except (StatusConflict, OperationRefused):
            self._repairs[f"{what}: refused"] += 1
            return True
        except (NotSent, NoAnswer, StoreUnavailable):
            return False
        self._repairs[what] += 1
        return True
