"""The comparison of a day, in both directions: what the provider lists and is not so here, then what is here and not there.

Promise: records and rows are paired by id, whatever their times, so that midnight makes no difference. A record is compared
on the day of its own time, and a movement that its day's list lacks is looked up by itself before it counts as missing.
Memory holds a page of each side, eight bytes for each record, and the first differences.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from uuid import UUID

from okane.operation import Operation
from okane.payment import Payment
from okane.providers.base import Approved, Authorized, Declined, NotFound, Pending, Unavailable
from okane.providers.listing import Listing, ProviderRecord
from okane.reconcile.comparison import Difference, compare_charge, compare_operation, is_under_way
from okane.reconcile.look_up import LookUps, is_unanswered
from okane.reconcile.seen import SeenRecords
from okane.store.movements import Movement, MovementStore

# Around the day, so that few movements have to be looked up one by one. The provider's record is older than our event.
LOOK_BACK, LOOK_AHEAD = timedelta(hours=1), timedelta(minutes=5)
# A record younger than this may be of a payment that is being settled.
SETTLING = timedelta(minutes=10)
MAX_KEPT = 1_000  # differences that are shown; all are counted
CONCURRENT_LOOK_UPS = 4


@dataclass(slots=True)
class DayResult:
    """The result of a comparison. `under_way`: records of payments that are being settled. `unanswered`: movements that the
    provider could not be asked about. `differences` are the first ones, and `counts` has all of them by kind."""

    listed: int = 0
    compared: int = 0
    under_way: int = 0
    unanswered: int = 0
    differences: list[Difference] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    fees: Counter[str] = field(default_factory=Counter)

    def add(self, difference: Difference) -> None:
        """Count a difference, and keep it if it is among the first."""
        self.counts[difference.kind] += 1
        if len(self.differences) < MAX_KEPT:
            self.differences.append(difference)


class DayComparison:
    """Compares the days of one provider. Only reads, here and there."""

    def __init__(
        self,
        *,
        movements: MovementStore,
        listing: Listing,
        look_ups: LookUps,
        find_payment: Callable[[UUID], Awaitable[Payment]],
        find_operation: Callable[[UUID], Awaitable[Operation]],
        progress: Callable[[str], None],
    ) -> None:
        self._movements = movements
        self._listing = listing
        self._look_ups = look_ups
        self._find_payment = find_payment
        self._find_operation = find_operation
        self._progress = progress

    async def run(self, begin: datetime, end: datetime) -> DayResult:
        """Compare the time from `begin` to before `end`. Raises ListingFailed, StoreUnavailable."""
        result, charges, captured, operations = DayResult(), SeenRecords(), SeenRecords(), SeenRecords()
        now = await self._movements.now()
        async for page in self._listing.list_records(begin - LOOK_BACK, min(end + LOOK_AHEAD, now)):
            for record in page:
                if record.kind == "charge" and record.payment_id is not None:
                    charges.add(record.payment_id, record.provider_ref)
                    if record.captured_minor is not None:
                        captured.add(record.payment_id, record.provider_ref)
                elif record.operation_id is not None:
                    operations.add(record.operation_id, record.provider_ref)
            await self._compare_records([one for one in page if begin <= one.at < end], result, now)
            self._progress(f"compared {result.listed:,} records of {self._listing.name}")
        async for movements in self._movements.each(begin, end, provider=self._listing.name):
            result.compared += len(movements)
            unseen = [one for one in movements if not _is_seen(one, charges, captured, operations)]
            await self._look_up(unseen, result)
            self._progress(f"compared {result.compared:,} movements with {self._listing.name}")
        return result

    async def _compare_records(self, records: Sequence[ProviderRecord], result: DayResult, now: datetime) -> None:
        """Compare records of the provider with the rows that they name."""
        named = {one.payment_id for one in records if one.kind == "charge" and one.payment_id is not None}
        payments = await self._movements.payments(named)
        operations = await self._movements.operations(
            {one.operation_id for one in records if one.kind != "charge" and one.operation_id is not None}
        )
        for record in records:
            result.listed += 1
            if record.fee_minor and record.fee_currency:
                result.fees[record.fee_currency] += record.fee_minor
            payment = payments.get(record.payment_id) if record.payment_id is not None else None
            operation = operations.get(record.operation_id) if record.operation_id is not None else None
            if record.kind == "charge":
                found = compare_charge(record, payment, provider=self._listing.name)
                status = None if payment is None else payment.status
            else:
                found = compare_operation(record, operation, provider=self._listing.name)
                status = None if operation is None else operation.status
            is_settling = status is not None and is_under_way(status) and now - record.at < SETTLING
            for difference in found:
                if is_settling and difference.kind == "status":
                    result.under_way += 1
                elif (
                    record.status == "authorized"
                    and difference.kind == "status"
                    and await self._is_past(record, status)
                ):
                    continue
                else:
                    result.add(difference)

    async def _is_past(self, record: ProviderRecord, status: str | None) -> bool:
        """Return whether an authorization has become what is here. A list may go on showing one that was voided, or may have
        been read before its capture."""
        assert record.payment_id is not None
        answer = await self._look_ups.payment(await self._find_payment(record.payment_id))
        if isinstance(answer, Approved):
            return status == "success"
        return isinstance(answer, Declined | NotFound) and status in ("canceled", "failed_final")

    async def _look_up(self, movements: Sequence[Movement], result: DayResult) -> None:
        """Look up movements that the list does not have, a few at a time."""
        rest = iter(movements)
        while some := list(islice(rest, CONCURRENT_LOOK_UPS)):
            for difference in await asyncio.gather(*map(self._confirm, some)):
                if difference is None:
                    result.unanswered += 1
                else:
                    for one in difference:
                        result.add(one)
            self._progress(f"looking up what the list of {self._listing.name} does not have")

    async def _confirm(self, movement: Movement) -> Sequence[Difference] | None:
        """Return the differences between a movement and what a look-up finds, None if it finds out nothing."""
        payment = await self._find_payment(movement.payment_id)
        if movement.operation_id is None:
            ref = payment.provider_ref
            answer = await self._look_ups.payment(payment)
        else:
            operation = await self._find_operation(movement.operation_id)
            ref = operation.provider_ref
            answer = await self._look_ups.operation(operation, payment)
        if is_unanswered(answer):
            return None
        return list(_differences(movement, answer, ref))


def _is_seen(movement: Movement, charges: SeenRecords, captured: SeenRecords, operations: SeenRecords) -> bool:
    """Return whether the list has the record of a movement."""
    if movement.operation_id is None:
        return charges.has(movement.payment_id, movement.provider_ref)
    if operations.has(movement.operation_id, movement.operation_ref):
        return True
    return movement.kind == "capture" and captured.has(movement.payment_id, movement.provider_ref)


def _differences(movement: Movement, answer: object, ref: str | None) -> Iterator[Difference]:
    """Yield the difference between a movement and the answer to its look-up. `ref`: the provider's name for it here."""
    amount = f"{movement.amount_minor:,} {movement.currency}"
    succeeded = movement.kind != "refund_reversal"

    def difference(kind: str, there: str) -> Difference:
        return Difference(
            "missing_there" if kind == "missing_there" else "status",
            movement.kind,
            f"{'success' if succeeded else 'failed_final'} {amount}",
            there,
            payment_id=movement.payment_id,
            operation_id=movement.operation_id,
            provider_ref=ref,
        )

    match answer:
        case Approved(provider_ref=found):
            if not succeeded:
                yield difference("status", f"succeeded as {found}")
            elif ref is not None and found != ref:
                yield difference("missing_there", f"its key has {found}")
        case NotFound():
            if succeeded:
                yield difference("missing_there", "nothing under its key")
        case Declined(code=code):
            if succeeded:
                yield difference("status", f"declined: {code}")
        case Authorized():
            yield difference("status", "authorized")
        case Pending():
            yield difference("status", "pending")
        case _:
            assert not isinstance(answer, Unavailable)
            yield difference("status", getattr(answer, "reason", "undecided"))
