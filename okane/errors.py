"""The errors that cross a layer. Everything expected of a payment is an outcome, not an error."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID


class OkaneError(Exception):
    """Base of all errors raised by okane."""


class StoreUnavailable(OkaneError):
    """Postgres did not answer, or answered that it cannot write now. The statement may or may not have been applied."""


class StoreBusy(StoreUnavailable):
    """Postgres is well, but a row was locked for too long, or a deadlock was broken: nothing was applied."""


class Overloaded(OkaneError):
    """What is there already waits for so long that nothing new is taken."""


class AccountBusy(OkaneError):
    """So many reads of one account wait already that no further one is taken."""


class IdempotencyKeyReused(OkaneError):
    """The key belongs to a payment that means something else."""

    def __init__(self, payment_id: UUID) -> None:
        super().__init__(f"the idempotency key belongs to payment {payment_id}, which asks for something else")
        self.payment_id = payment_id


class TimeOutOfRange(OkaneError):
    """A new payment's `execute_at` or `expires_at` is over, or too far ahead, by the database's clock, which said `now`."""

    def __init__(self, now: datetime) -> None:
        super().__init__(f"a time is not in the future, or too far away, at {now.isoformat()}")
        self.now = now


class PaymentNotFound(OkaneError):
    """There is no such payment in the caller's account."""


class StatusConflict(OkaneError):
    """The payment's status does not allow what was asked."""

    def __init__(self, status: str, action: str) -> None:
        super().__init__(f"a payment that is {status} cannot be {action}")
        self.status = status


class SetupError(OkaneError):
    """A process cannot start as configured; the message says what to do about it."""
