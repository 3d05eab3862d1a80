"""The comparison of a day, in both directions: what the provider lists and is not so here, then what is here and not there.

Promise: records and rows are paired by id, whatever their times, so that midnight makes no difference. A record is compared
on the day of its own time, and a movement that its day's list lacks is looked up by itself before it counts as missing.
Both sides go on changing meanwhile: what the list shows as not at its end is looked up, and a row is read again, before they
count as different. Memory holds a page of each side, eight bytes for each record, and the first differences.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from uuid import UUID

from okane.operation import TERMINAL, Operation
from okane.payment import Payment
from okane.providers.base import Approved, Authorized, Declined, NotFound, Pending, Unavailable
from okane.providers.listing import Listing, ListingFailed, ProviderRecord
from okane.reconcile.comparison import Difference, compare_charge, compare_operation, is_under_way
from okane.reconcile.look_up import LookUps, is_unanswered
from okane.reconcile.seen import SeenRecords
from okane.store.movements import BookedOperation, BookedPayment, Movement, MovementStore

# Around the day, so that few movements have to be looked up one by one. The provider's record is older than our event.
LOOK_BACK, LOOK_AHEAD = timedelta(hours=1), timedelta(minutes=5)
# A record younger than this may be of a payment that is being settled.
SETTLING = timedelta(minutes=10)
MAX_KEPT = 1_000  # differences that are shown; all are counted
RECHECKED_AT_ONCE = 500
CONCURRENT_LOOK_UPS = 4
# Each unanswered look-up was tried for ten seconds: a provider that is away must not hold up the command for days.
MAX_UNANSWERED = 20

Payments = Mapping[UUID, BookedPayment]
Operations = Mapping[UUID, BookedOperation]
Again = Callable[[], Awaitable[bool]]  # whether it still differs


@dataclass(slots=True)
class DayResult:
    """The result of a comparison. `under_way`: records of payments that are being settled. `unanswered`: movements and
    records that the provider could not be asked about. `differences` are the first ones, `records` has those of them that
    came from a record, by their place, `again` the comparison of those that came from a look-up with the row as it is now,
    and `counts` has all of them by kind."""

    listed: int = 0
    compared: int = 0
    under_way: int = 0
    unanswered: int = 0
    differences: list[Difference] = field(default_factory=list)
    records: dict[int, ProviderRecord] = field(default_factory=dict)
    again: dict[int, Again] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    fees: Counter[str] = field(default_factory=Counter)

    def add(self, difference: Difference, record: ProviderRecord | None = None, *, again: Again | None = None) -> None:
        """Count a difference, and keep it if it is among the first."""
        self.counts[difference.kind] += 1
        if len(self.differences) < MAX_KEPT:
            if again is not None:
                self.again[len(self.differences)] = again
            elif record is not None:
                self.records[len(self.differences)] = record
            self.differences.append(difference)

    def remove(self, places: Collection[int]) -> None:
        """Remove the differences at these places."""
        kept = [place for place in range(len(self.differences)) if place not in places]
        self.counts.subtract(self.differences[place].kind for place in places)
        self.records = {new: self.records[old] for new, old in enumerate(kept) if old in self.records}
        self.again = {new: self.again[old] for new, old in enumerate(kept) if old in self.again}
        self.differences = [self.differences[place] for place in kept]


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
        """Compare the time from `begin` to before `end`. Raises ListingFailed, also if the provider answers no look-ups, and
        StoreUnavailable."""
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
        result.remove(await self.find_settled(result))
        return result

    async def find_settled(self, result: DayResult) -> Collection[int]:
        """Return the places of those differences in status that have gone: their rows have changed since, and agree now with
        the records, or with what their look-ups have found. Raises StoreUnavailable."""
        doubtful = {place: one for place, one in result.records.items() if result.differences[place].kind == "status"}
        records = list(doubtful.values())
        settled: set[int] = set()
        for first in range(0, len(records), RECHECKED_AT_ONCE):
            rows = await self._rows(records[first : first + RECHECKED_AT_ONCE])
            places = list(doubtful)[first : first + RECHECKED_AT_ONCE]
            settled |= {place for place in places if not any(self._compare(doubtful[place], *rows))}
        for place, differs in result.again.items():
            if result.differences[place].kind == "status" and not await differs():
                settled.add(place)
        return settled

    async def _compare_records(self, records: Sequence[ProviderRecord], result: DayResult, now: datetime) -> None:
        """Compare records of the provider with the rows that they name."""
        payments, operations = await self._rows(records)
        for record in records:
            result.listed += 1
            if record.fee_minor and record.fee_currency:
                result.fees[record.fee_currency] += record.fee_minor
            row = _row_of(record, payments, operations)
            is_settling = row is not None and is_under_way(row.status) and now - record.at < SETTLING
            for difference in self._compare(record, payments, operations):
                if row is None or difference.kind != "status":
                    result.add(difference, record)
                elif is_settling:
                    result.under_way += 1
                elif record.status in ("authorized", "pending"):
                    await self._add_unless_past(difference, record, row.status, result)
                else:
                    result.add(difference, record)

    async def _rows(self, records: Sequence[ProviderRecord]) -> tuple[Payments, Operations]:
        """Return the payments and operations that these records name, as they are now."""
        payments = await self._movements.payments(
            {one.payment_id for one in records if one.kind == "charge" and one.payment_id is not None}
        )
        operations = await self._movements.operations(
            {one.operation_id for one in records if one.kind != "charge" and one.operation_id is not None}
        )
        return payments, operations

    def _compare(self, record: ProviderRecord, payments: Payments, operations: Operations) -> Iterator[Difference]:
        if record.kind == "charge":
            payment = payments.get(record.payment_id) if record.payment_id is not None else None
            return compare_charge(record, payment, provider=self._listing.name)
        operation = operations.get(record.operation_id) if record.operation_id is not None else None
        return compare_operation(record, operation, provider=self._listing.name)

    async def _add_unless_past(
        self, difference: Difference, record: ProviderRecord, status: str, result: DayResult
    ) -> None:
        """Add a difference from a record that is not at its end, unless it has become what is here. A list may go on showing
        an authorization that was voided, or may have been read before its capture or before a debit was decided."""
        if record.kind == "charge":
            assert record.payment_id is not None
            answer: object = await self._look_ups.payment(await self._find_payment(record.payment_id))
        else:
            assert record.operation_id is not None
            operation = await self._find_operation(record.operation_id)
            answer = await self._look_ups.operation(operation, await self._find_payment(operation.payment_id))
        if is_unanswered(answer):
            self._add_unanswered(result)
        elif not _agrees(answer, status):
            result.add(difference, record, again=lambda: self._record_differs(record, answer))

    async def _record_differs(self, record: ProviderRecord, answer: object) -> bool:
        row = _row_of(record, *await self._rows([record]))
        return row is None or not _agrees(answer, row.status)

    def _add_unanswered(self, result: DayResult) -> None:
        result.unanswered += 1
        if result.unanswered >= MAX_UNANSWERED:
            raise ListingFailed(
                f"{self._listing.name} did not answer {result.unanswered} look-ups: not all is compared"
            )

    async def _look_up(self, movements: Sequence[Movement], result: DayResult) -> None:
        """Look up movements that the list does not have, a few at a time."""
        rest = iter(movements)
        while some := list(islice(rest, CONCURRENT_LOOK_UPS)):
            for movement, answer in zip(some, await asyncio.gather(*map(self._ask, some)), strict=True):
                if is_unanswered(answer):
                    self._add_unanswered(result)
                    continue
                for one in await self._confirm(movement, answer):
                    result.add(one, again=partial(self._movement_differs, movement, answer))
            self._progress(f"looking up what the list of {self._listing.name} does not have")

    async def _ask(self, movement: Movement) -> object:
        """Return what the provider answers about a movement. None: it is not at rest here."""
        payment = await self._find_payment(movement.payment_id)
        if movement.operation_id is None:
            return await self._look_ups.payment(payment)
        operation = await self._find_operation(movement.operation_id)
        return None if operation.status not in TERMINAL else await self._look_ups.operation(operation, payment)

    async def _confirm(self, movement: Movement, answer: object) -> Sequence[Difference]:
        """Return the difference between a movement and the answer to its look-up."""
        if movement.operation_id is None:
            ref, status = (await self._find_payment(movement.payment_id)).provider_ref, "success"
        else:
            # As it is now: a refund that succeeded on this day may have failed since, or have been tried again.
            operation = await self._find_operation(movement.operation_id)
            if operation.status not in TERMINAL:
                return []
            ref, status = operation.provider_ref, operation.status.value
        return [] if answer is None else list(_differences(movement, answer, ref=ref, status=status))

    async def _movement_differs(self, movement: Movement, answer: object) -> bool:
        return bool(await self._confirm(movement, answer))


def _agrees(answer: object, status: str) -> bool:
    """Return True if the answer to a look-up says what is here."""
    if isinstance(answer, Approved):
        return status == "success"
    return isinstance(answer, Declined | NotFound) and status in ("canceled", "failed_final")


def _row_of(
    record: ProviderRecord, payments: Payments, operations: Operations
) -> BookedPayment | BookedOperation | None:
    if record.kind == "charge":
        return payments.get(record.payment_id) if record.payment_id is not None else None
    return operations.get(record.operation_id) if record.operation_id is not None else None


def _is_seen(movement: Movement, charges: SeenRecords, captured: SeenRecords, operations: SeenRecords) -> bool:
    """Return whether the list has the record of a movement."""
    if movement.operation_id is None:
        return charges.has(movement.payment_id, movement.provider_ref)
    if operations.has(movement.operation_id, movement.operation_ref):
        return True
    return movement.kind == "capture" and captured.has(movement.payment_id, movement.provider_ref)


def _differences(movement: Movement, answer: object, *, ref: str | None, status: str) -> Iterator[Difference]:
    """Yield the difference between a movement and the answer to its look-up. `ref`: the provider's name for it here;
    `status`: that of its payment or operation."""
    amount = f"{movement.amount_minor:,} {movement.currency}"
    succeeded = status == "success"

    def difference(kind: str, there: str) -> Difference:
        return Difference(
            "missing_there" if kind == "missing_there" else "status",
            movement.kind,
            f"{status} {amount}",
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
