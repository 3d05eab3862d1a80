"""The errors that cross layers. The expected results of a payment are outcomes, not errors."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

# Why a payment has nothing for a capture, void or refund to move.
ReservationRefusal = Literal[
    "capture_exceeds_authorized",
    "refund_exceeds_captured",
    "currency_mismatch",
    "payment_not_authorized",
    "payment_not_captured",
    "operation_in_progress",
]
# Why a capture, void or refund is refused.
RefusalCode = Literal[ReservationRefusal, "unsupported_by_provider"]


class OkaneError(Exception):
    """The base of all errors of okane."""


class StoreUnavailable(OkaneError):
    """Postgres did not answer, or answered that it cannot write now. The statement may or may not have been applied."""


class StoreBusy(StoreUnavailable):
    """Postgres works, but a row was locked for too long, a deadlock was broken, or a statement was ended: nothing was
    applied."""


class StoreSlow(StoreBusy):
    """Postgres works, but a statement took longer than its time-out, and was ended: nothing was applied."""


class Overloaded(OkaneError):
    """New payments are refused, because the waiting ones have been due for too long."""


class AccountBusy(OkaneError):
    """A read is refused, because too many reads of its account are waiting."""


class TooManyTests(OkaneError):
    """A test of an endpoint is refused, because too many tests are not answered yet."""


class IdempotencyKeyReused(OkaneError):
    """The idempotency key belongs to a different payment, or to another object of this kind (`what`) and id."""

    def __init__(self, id_: UUID, *, what: str = "payment") -> None:
        super().__init__(f"the idempotency key belongs to {what} {id_}, whose request was different")
        self.payment_id = id_
        self.what = what


class PaymentMethodKeyReused(OkaneError):
    """The idempotency key belongs to a different saved payment method."""

    def __init__(self, method_id: UUID) -> None:
        super().__init__(f"the idempotency key belongs to payment method {method_id}, whose request was different")
        self.method_id = method_id


class TimeOutOfRange(OkaneError):
    """A new payment's `execute_at` or `expires_at` is past, or too far ahead, of `now` by the database's clock."""

    def __init__(self, now: datetime) -> None:
        super().__init__(f"a time is not in the future, or is too far ahead, at {now.isoformat()}")
        self.now = now


class PaymentNotFound(OkaneError):
    """The caller's account has no such payment."""


class PaymentArchived(PaymentNotFound):
    """Payments of this time were archived: by the time in its id, whether it ever existed or not."""


class OperationNotFound(OkaneError):
    """The caller's account has no such capture, void or refund."""


class OperationRefused(OkaneError):
    """A capture, void or refund is refused, and nothing was changed. `limit`: the most that is possible, in minor units."""

    def __init__(self, code: RefusalCode, message: str, limit: int | None = None) -> None:
        super().__init__(message)
        self.code: RefusalCode = code
        self.message = message
        self.limit = limit


class StatusConflict(OkaneError):
    """The status of the payment, or of the operation of this kind (`what`), does not allow the action."""

    def __init__(self, status: str, action: str, *, what: str = "payment") -> None:
        super().__init__(f"a {what} that is {status} cannot be {action}{_AT_PROVIDER.get(status, '')}")
        self.status = status
        self.what = what


class VersionConflict(StatusConflict):
    """The payment or operation has changed since the version that the action was decided by."""

    def __init__(self, status: str, action: str, *, seen: int, version: int, what: str = "payment") -> None:
        super().__init__(status, action, what=what)
        self.args = (f"the {what} has changed: it was decided by version {seen}, and is {status} in version {version}",)


_AT_PROVIDER = {
    "requires_action": ": the provider has it, and charges it when the customer acts",
    "submitted": ": the provider has it, and will report whether it was charged",
}


class SetupError(OkaneError):
    """A process cannot start with its configuration; the message says what to change."""
