"""The notices of providers in Postgres: each stored once, with the payment or operation that it makes due.

A notice writes no outcome and no event. It only makes its payment or its capture, void or refund due; the claim that follows
fetches from the provider.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from okane.store import sql_files
from okane.store.operation_records import OperationWakeUp
from okane.store.session import Session
from okane.store.sql_parameters import milliseconds
from okane.store.sweep import WakeUp
from streams.values import value

SQL = sql_files.load_statements("provider_events.sql", blocks_of="payments.sql")

WINDOW = 5_000  # notices of payments in work that one pass looks at, the oldest first
MAX_WAKE_UPS = 500  # of one pass

# `unmatched`: there is no such payment or operation at this provider.
TakeResult = Literal["taken", "repeated", "unmatched"]


@value
class ProviderEvent:
    """A notice to store. `provider_key`: the idempotency key of the charge it is about, if it names it. `is_refusal`: it says
    that no money moved. `operation_id`, `dispute_ref`: it is about this capture, void or refund, or this dispute, and not
    about the payment."""

    event_id: str
    kind: str
    payment_id: UUID | None
    provider_ref: str | None
    provider_key: str | None = None
    is_refusal: bool = False
    operation_id: UUID | None = None
    dispute_ref: str | None = None


@dataclass(frozen=True, slots=True)
class TakenEvent:
    """The result for one notice. `wake_up`: its payment, if that was made due and waits for a wake-up; `operation`: the same
    for an operation."""

    result: TakeResult
    wake_up: WakeUp | None = None
    operation: OperationWakeUp | None = None


class ProviderEventStore:
    """Store notices, make their payments due, and delete old ones."""

    def __init__(self, url: str, *, grace: timedelta, timeout: timedelta = timedelta(seconds=10)) -> None:
        self._session = Session(url, name="provider events", timeout=timeout, index_only=True)
        self._grace = grace

    async def aclose(self) -> None:
        """Close the connection."""
        await self._session.aclose()

    async def take(self, provider: str, events: Sequence[ProviderEvent]) -> Sequence[TakenEvent]:
        """Store those of one provider's notices that are new, and make their payments or operations due; return a result for
        each.

        Repeatable after StoreUnavailable: what is stored already is `repeated`, and the sweep finds what it made due.
        """
        subjects = [_subject(one) for one in events]
        taken: dict[str, Iterator[TakenEvent]] = {}
        for subject, take in (
            ("payment", self._take),
            ("operation", self._take_of_operations),
            ("dispute", self._take_of_disputes),
        ):
            theirs = [one for one, its in zip(events, subjects, strict=True) if its == subject]
            taken[subject] = iter(await take(provider, theirs) if theirs else ())
        return [next(taken[subject]) for subject in subjects]

    async def _take_of_disputes(self, provider: str, events: Sequence[ProviderEvent]) -> Sequence[TakenEvent]:
        parameters = {
            "provider": provider,
            "event_ids": [one.event_id for one in events],
            "kinds": [one.kind for one in events],
            "dispute_refs": [one.dispute_ref for one in events],
        }
        return [TakenEvent(row[0]) for row in await self._session.fetch_repeatable(SQL["take_of_disputes"], parameters)]

    async def _take(self, provider: str, events: Sequence[ProviderEvent]) -> Sequence[TakenEvent]:
        keys = {"provider_keys": [one.provider_key for one in events]}
        found = await self._session.fetch_repeatable(SQL["take"], self._parameters(provider, events) | keys)
        return [
            TakenEvent(result, None if lane is None else WakeUp(payment_id, lane)) for result, payment_id, lane in found
        ]

    async def _take_of_operations(self, provider: str, events: Sequence[ProviderEvent]) -> Sequence[TakenEvent]:
        ids = {"operation_ids": [one.operation_id for one in events]}
        found = await self._session.fetch_repeatable(
            SQL["take_of_operations"], self._parameters(provider, events) | ids
        )
        return [
            TakenEvent(result, operation=None if lane is None else OperationWakeUp(operation_id, lane))
            for result, operation_id, lane in found
        ]

    def _parameters(self, provider: str, events: Sequence[ProviderEvent]) -> dict[str, Any]:
        return {
            "provider": provider,
            "event_ids": [one.event_id for one in events],
            "kinds": [one.kind for one in events],
            "payment_ids": [one.payment_id for one in events],
            "provider_refs": [one.provider_ref for one in events],
            "refusals": [one.is_refusal for one in events],
            "grace_ms": milliseconds(self._grace),
        }

    async def wake_noticed(self, *, limit: int = MAX_WAKE_UPS) -> Sequence[WakeUp]:
        """Make those payments due whose notice came while a worker had them in work; return the open ones, for wake-ups."""
        parameters = {"window": WINDOW, "limit": limit, "grace_ms": milliseconds(self._grace)}
        return [WakeUp(*row) for row in await self._session.fetch(SQL["wake_noticed"], parameters)]

    async def wake_noticed_operations(self, *, limit: int = MAX_WAKE_UPS) -> Sequence[OperationWakeUp]:
        """The same for captures, voids and refunds."""
        parameters = {"window": WINDOW, "limit": limit, "grace_ms": milliseconds(self._grace)}
        found = await self._session.fetch(SQL["wake_noticed_operations"], parameters)
        return [OperationWakeUp(*row) for row in found]

    async def delete_old(self, older_than: timedelta, *, limit: int) -> int:
        """Delete up to `limit` notices that are older than this; return their number."""
        parameters = {"older_than_ms": milliseconds(older_than), "limit": limit}
        return len(await self._session.fetch(SQL["delete_old"], parameters))


def _subject(event: ProviderEvent) -> str:
    if event.dispute_ref is not None:
        return "dispute"
    return "payment" if event.operation_id is None else "operation"
