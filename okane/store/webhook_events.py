"""The log of events: outbox rows get positions in it, and dispatchers and the API read it.

Guarantee: positions are dense, become visible in their order, and follow the versions of each payment. Each change of an
account with an endpoint gets exactly one.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import psycopg

from okane.errors import StoreBusy, StoreUnavailable
from okane.store import sql_files, webhook_partitions
from okane.store.prepared_statements import Row
from okane.store.session import Session
from okane.store.webhook_partitions import Dropped
from okane.time_slice import TimeSlice
from streams.failpoints import failpoint
from streams.values import value

SQL = sql_files.prepare_statements(
    "webhook_events.sql",
    *("look", "lock", "sequence", "last", "read", "page", "of_payment", "one", "many"),
    blocks_of="payments.sql",
)

WINDOW = 2_000  # events of an account that one read looks at: some milliseconds
FARTHEST = 2**63 - 1
PATIENCE = timedelta(
    minutes=10
)  # for ten million rows, left by an outage of all sequencers: most runs take milliseconds

AFTER_SEQUENCE = failpoint(
    "webhooks.after_sequence", "events have positions, nothing is committed", raises=StoreUnavailable
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EVENT_ID = re.compile(r"evt_([0-9a-f]{32})_(0|[1-9][0-9]{0,9})")


@value
class LoggedEvent:
    """One event at its position. For `webhook_endpoint.*` the id and the version are the endpoint's."""

    position: int
    account_id: str
    payment_id: UUID
    version: int
    type: str
    at: datetime


@value
class ReportedOperation:
    """The capture, void or refund that an event of a payment reports. `event` is its name in the payment's history.

    `metadata` is None if it has over 2 kB. `idempotency_key` is None for the void of an authorization that ended.
    """

    id: UUID
    kind: str
    event: str
    amount_minor: int
    created_at: datetime
    idempotency_key: str | None
    reason: str | None
    decline_code: str | None
    metadata: Mapping[str, str] | None


@value
class DisputeSnapshot:
    """The dispute that an event of a payment reports, as it was then."""

    id: UUID
    provider: str
    provider_ref: str
    status: str
    amount_minor: int
    currency: str
    reason: str | None
    due_by: datetime | None


@value
class EventRow:
    """An event with the members of its body, as they were right after the change: the same at every read.

    For `webhook_endpoint.*` only `event` has a meaning. `metadata` is None if it has over 2 kB and was not asked for.
    If the event reports an `operation`, `reason` is that of its outcome.
    """

    event: LoggedEvent
    status: str
    attempts: int
    reason: str | None
    decline_code: str | None
    amount_minor: int
    currency: str
    idempotency_key: str
    created_at: datetime
    metadata: Mapping[str, str] | None
    operation: ReportedOperation | None = None
    dispute: DisputeSnapshot | None = None


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events of one account. `reached`: the position up to which none was left out; the next page begins after it."""

    rows: Sequence[EventRow]
    reached: int


@value
class Sequenced:
    """One run of sequencing: how many events of each type it gave positions, the age of the oldest in seconds, and the
    highest position of the log."""

    last: int
    by_type: Mapping[str, int]
    oldest_s: float = 0.0

    @property
    def count(self) -> int:
        """The number of events."""
        return sum(self.by_type.values())


class WebhookEventStore:
    """Write and read the log. Sequencing, reads and table partitions have a connection each, from their first use on."""

    def __init__(self, url: str, *, timeout: timedelta = timedelta(seconds=10)) -> None:
        self._sequencing = Session(url, name="webhook sequencing", timeout=timeout, index_only=True)
        self._catching_up = Session(url, name="webhook catching up", timeout=PATIENCE, index_only=True)
        self._reading = Session(url, name="webhook events", timeout=timeout, in_order=True)
        # Apart from the others, which must not wait for long rows.
        self._reading_whole = Session(url, name="webhook long events", timeout=timeout, in_order=True)
        self._timeout_s = timeout.total_seconds()
        self._partitions = Session(url, name="webhook partitions", timeout=timeout)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._sequencing.aclose()
        await self._catching_up.aclose()
        await self._reading.aclose()
        await self._reading_whole.aclose()
        await self._partitions.aclose()

    async def sequence(self) -> Sequenced | None:
        """Give the changes that were committed since the last run positions in the log. Return None while another process
        does it. Without such changes it costs a few index lookups, and writes nothing.
        """
        [(last, is_fresh)] = await self._sequencing.fetch(SQL["look"])
        if not is_fresh:
            return Sequenced(last, {})
        try:
            return await self._sequence_in_time()
        except psycopg.errors.CheckViolation:  # no table partition for a position: the process that makes them was away
            await self.prepare_partitions()
        try:
            return await self._sequence_in_time()
        except psycopg.errors.CheckViolation as error:  # another process is making it
            raise StoreUnavailable("the log of events has no table partition for the next position") from error

    async def _sequence_in_time(self) -> Sequenced | None:
        """Sequence within the usual deadline, or else with patience: a run cannot be divided, and must end at some time."""
        started_s = time.monotonic()
        try:
            return await self._sequence(self._sequencing)
        except StoreBusy:
            if time.monotonic() - started_s < self._timeout_s:
                raise  # it waited for a lock
        return await self._sequence(self._catching_up)

    async def _sequence(self, session: Session) -> Sequenced | None:
        async with session.prepared_transaction() as fetch:
            if await fetch(SQL["lock"]) != [(True,)]:
                return None
            found = await fetch(SQL["sequence"])
            if found and AFTER_SEQUENCE.armed:
                await AFTER_SEQUENCE.hit()
        if not found:  # another process was faster
            return Sequenced(await self.last_position(), {})
        by_type = {type_: count for type_, count, _, _ in found}
        return Sequenced(found[0][3], by_type, max(age_s for _, _, age_s, _ in found))

    async def prepare_partitions(self) -> int:
        """Make the table partitions that the log will need next; return how many were missing."""
        return await webhook_partitions.prepare(self._partitions)

    async def drop_partitions(self, keep: timedelta, max_bytes: int | None) -> Dropped:
        """Drop the table partitions whose events are older than `keep`, and the oldest ones beyond `max_bytes`.

        One that an endpoint still has to deliver from is kept for a while longer; after that, and for `max_bytes` at once,
        its deliveries are given up. Raises StoreBusy while another session reads the log for long.
        """
        return await webhook_partitions.drop(self._partitions, keep=keep, max_bytes=max_bytes)

    async def warn_behind(self, endpoint_ids: Sequence[UUID]) -> Sequence[tuple[UUID, str]]:
        """Write `webhook_endpoint.disabled` once more for those that are disabled: they will lose events. Return them, with
        their accounts, the first time."""
        return await webhook_partitions.warn(self._partitions, endpoint_ids)

    async def last_position(self) -> int:
        """Return the highest position of the log, 0 for an empty one."""
        return int((await self._sequencing.fetch_repeatable(SQL["last"]))[0][0])

    async def read(self, after: int, limit: int) -> Sequence[EventRow]:
        """Return the events of all accounts after a position, in its order, without long metadata."""
        parameters = {"after": after, "limit": limit, "whole": False}
        return await _rows(await self._reading.fetch_repeatable(SQL["read"], parameters))

    async def read_account(
        self,
        account_id: str,
        after: int,
        limit: int,
        types: Sequence[str] | None = None,
        *,
        up_to: int = FARTHEST,
        undelivered_to: UUID | None = None,
        whole: bool = False,
    ) -> EventPage:
        """Return events of one account after a position, in its order, of these types (None: of all), with long metadata
        only if they are to be `whole`.

        With `undelivered_to` the events that have a delivery at this endpoint are left out, whatever its state. Looks at
        WINDOW events at most, so it may return none before the end: `reached` tells them apart.
        """
        found = await self._reading.fetch_repeatable(
            SQL["page"],
            {
                "account_id": account_id,
                "after": after,
                "up_to": up_to,
                "window": WINDOW,
                "limit": limit,
                **_types(types),
                "endpoint_id": undelivered_to,
                "whole": whole,
            },
        )
        rows = await _rows([row[1:] for row in found if row[1] is not None])
        return EventPage(rows, reached=found[0][0])

    async def page(
        self,
        account_id: str,
        after: int,
        limit: int,
        types: Sequence[str] | None = None,
        payment_id: UUID | None = None,
    ) -> EventPage:
        """Return events of one account, or of one of its payments, after a position, in its order."""
        if payment_id is None:
            return await self.read_account(account_id, after, limit, types, whole=True)
        last = await self.last_position()  # before the read: what gets a position meanwhile comes with the next page
        found = await self._reading.fetch_repeatable(
            SQL["of_payment"],
            {
                "account_id": account_id,
                "payment_id": payment_id,
                "after": after,
                "limit": limit,
                **_types(types),
                "whole": True,
            },
        )
        rows = await _rows(found)
        return EventPage(rows, reached=rows[-1].event.position if len(rows) == limit else max(after, last))

    async def get(self, account_id: str, event_id: str) -> EventRow | None:
        """Return an event by its id (`evt_…`), or None if this account has no such event, or no more."""
        match = _EVENT_ID.fullmatch(event_id)
        if match is None or int(match[2]) >= 2**31:
            return None
        wanted = {"account_id": account_id, "payment_id": UUID(match[1]), "version": int(match[2]), "whole": True}
        rows = await _rows(await self._reading.fetch_repeatable(SQL["one"], wanted))
        return rows[0] if rows else None

    async def get_many(self, positions: Sequence[int]) -> Sequence[EventRow]:
        """Return the events at these positions, in their order, without long metadata; what was dropped is missing."""
        parameters = {"positions": list(positions), "whole": False}
        return await _rows(await self._reading.fetch_repeatable(SQL["many"], parameters))

    async def get_whole(self, positions: Sequence[int]) -> Sequence[EventRow]:
        """Return the events as `get_many` does, with long metadata: each may have a hundred kB."""
        parameters = {"positions": list(positions), "whole": True}
        return await _rows(await self._reading_whole.fetch_repeatable(SQL["many"], parameters))


def _types(types: Sequence[str] | None) -> Mapping[str, object]:
    return {"all_types": types is None, "types": list(types or ())}


async def _rows(found: Sequence[Row]) -> Sequence[EventRow]:
    """Return the events in rows of `{row}`. Long metadata takes long to parse: other tasks run in between."""
    time_slice, rows = TimeSlice(), []
    for row in found:
        rows.append(_row(row))
        await time_slice.end_if_spent()
    return rows


def _row(row: Row) -> EventRow:
    event = LoggedEvent(*row[:6])
    status, attempts, reason, decline_code, amount_minor, currency, idempotency_key, created_at, metadata = row[6:15]
    if amount_minor is None:  # of an endpoint
        return EventRow(event, "", 0, None, None, 0, "", "", event.at, {})
    return EventRow(
        event,
        status,
        attempts,
        reason,
        decline_code,
        amount_minor,
        currency,
        idempotency_key,
        created_at,
        _metadata(metadata),
        None if row[15] is None else _operation(json.loads(row[15])),
        None if row[16] is None else _dispute(json.loads(row[16])),
    )


def _operation(document: Mapping[str, Any]) -> ReportedOperation:
    return ReportedOperation(
        UUID(document["id"]),
        document["kind"],
        document["event"],
        document["amount"],
        _EPOCH + timedelta(microseconds=document["created_us"]),
        document["idempotency_key"],
        document["reason"],
        document["decline_code"],
        document["metadata"],
    )


def _dispute(document: Mapping[str, Any]) -> DisputeSnapshot:
    due_us = document["due_us"]
    return DisputeSnapshot(
        UUID(document["id"]),
        document["provider"],
        document["provider_ref"],
        document["status"],
        document["amount"],
        document["currency"],
        document["reason"],
        None if due_us is None else _EPOCH + timedelta(microseconds=due_us),
    )


def _metadata(text: str | None) -> Mapping[str, str] | None:
    if text is None:
        return None
    return {} if text == "{}" else cast("Mapping[str, str]", json.loads(text))
