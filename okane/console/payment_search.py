"""Lists of payments for pages, searches included. A search that no index answers takes a turn, and ends after a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from okane.console.search_turns import SearchTurns
from okane.console.search_windows import read_windows
from okane.payment import Payment
from okane.store import PaymentFilter, PaymentLists
from okane.store.lists import is_search, window_of
from okane.store.metadata_index import MetadataSearch

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class FoundPayments:
    """A page of payments, newest first.

    `after`: the id behind which the next page begins, None at the end. `stopped`: the search ended before the page was full;
    `looked_through` is how many payments it has seen, None if it does not know.
    """

    payments: Sequence[Payment]
    after: UUID | None
    stopped: bool = False
    looked_through: int | None = None

    @property
    def back_to(self) -> datetime | None:
        """The time of creation up to which the search came, None if it came to the end."""
        return None if self.after is None else made_about(self.after)


class PaymentSearch:
    """Reads pages of payments."""

    def __init__(
        self,
        lists: PaymentLists,
        turns: SearchTurns,
        *,
        by_metadata: MetadataSearch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lists = lists
        self._by_metadata = by_metadata
        self._turns = turns
        self._clock = clock

    async def page(
        self, wanted: PaymentFilter, *, account_id: str, session_id: str, limit: int, after: UUID | None = None
    ) -> FoundPayments | None:
        """Return up to `limit` payments, or None while too many searches run. Raises StoreUnavailable, AccountBusy."""
        if not is_search(wanted):
            return await self._read(wanted, account_id=account_id, limit=limit, after=after)
        with self._turns.take(session_id) as is_mine:
            return await self._read(wanted, account_id=account_id, limit=limit, after=after) if is_mine else None

    async def _read(self, wanted: PaymentFilter, *, account_id: str, limit: int, after: UUID | None) -> FoundPayments:
        """Read windows until the page is full, the second is over, or there are no more payments.

        Metadata is found by its index, where there is one.
        """
        if self._by_metadata is not None:
            indexed = await self._by_metadata.page(wanted, account_id=account_id, limit=limit, after=after)
            if indexed is not None:
                return FoundPayments(indexed.payments, indexed.after)

        async def read(most: int, place: UUID | None) -> tuple[Sequence[Payment], UUID | None]:
            page = await self._lists.page_without_metadata(wanted, account_id=account_id, limit=most, after=place)
            return page.payments, page.after

        found = await read_windows(read, limit=limit, after=after, clock=self._clock)
        if found.looked_through is None:
            return FoundPayments(found.rows, found.after)
        window = window_of(wanted)
        looked_through = None if window is None else found.looked_through * window
        return FoundPayments(found.rows, found.after, stopped=True, looked_through=looked_through)


def made_about(payment_id: UUID) -> datetime:
    """Return the time in an id (a UUID of version 7)."""
    return _EPOCH + min(timedelta(milliseconds=payment_id.int >> 80), datetime.max.replace(tzinfo=UTC) - _EPOCH)
