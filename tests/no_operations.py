"""The operations of a test's provider that is never asked for one."""

from __future__ import annotations

from okane.operation import Operation
from okane.payment import Payment
from okane.providers.base import Declined, LookUpResult, OperationLookUp, OperationResult


class NoOperations:
    """The part of a `Provider` that fails the test when it is called."""

    async def release(self, payment: Payment, declined: Declined) -> LookUpResult:
        raise AssertionError(f"a release of {payment.id}")

    async def operate(self, operation: Operation, payment: Payment) -> OperationResult:
        raise AssertionError(f"a {operation.kind} of {payment.id}")

    async def look_up_operation(self, operation: Operation, payment: Payment, *, may_execute: bool) -> OperationLookUp:
        raise AssertionError(f"a look-up of a {operation.kind} of {payment.id}")
