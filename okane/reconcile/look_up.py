"""Look-ups at the provider of single payments and operations, where its list of the day does not have them.

Nothing is charged: no look-up may execute. A call that the provider did not answer is made again a few times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from okane.operation import Operation
from okane.payment import Payment
from okane.providers.base import LookUpResult, OperationLookUp, Provider, Unavailable, Unknown
from okane.providers.redaction import without_secrets

PAUSES_S = (0.5, 2.0, 8.0)
_LONGEST_PAUSE = timedelta(seconds=30)
R = TypeVar("R", bound=LookUpResult)


class LookUps:
    """Look-ups at one provider."""

    def __init__(self, provider: Provider, *, pauses_s: tuple[float, ...] = PAUSES_S) -> None:
        self._provider = provider
        self._pauses_s = pauses_s

    async def payment(self, payment: Payment) -> LookUpResult:
        """Return the outcome of the charge."""
        return await self._patient(lambda: self._provider.look_up(payment, may_execute=False))

    async def operation(self, operation: Operation, payment: Payment) -> OperationLookUp:
        """Return the outcome of the operation."""
        return await self._patient(lambda: self._provider.look_up_operation(operation, payment, may_execute=False))

    async def _patient(self, call: Callable[[], Awaitable[R]]) -> R:
        result = await call()
        for pause_s in self._pauses_s:
            if not is_unanswered(result):
                break
            wait = result.retry_after if isinstance(result, Unavailable) else None
            await asyncio.sleep(pause_s if wait is None else min(wait, _LONGEST_PAUSE).total_seconds())
            result = await call()
        return without_secrets(result)


def is_unanswered(result: object) -> bool:
    """Return True for a result that says nothing about the charge."""
    return isinstance(result, Unavailable) or (isinstance(result, Unknown) and not result.at_once)
