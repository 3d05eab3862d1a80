"""Searches of payments: bounded in time and number, and honest about how far they came."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import UUID

import pytest

from okane.console.payment_search import FoundPayments, PaymentSearch, made_about
from okane.console.search_turns import BUDGET_S, SEARCHES, SearchTurns
from okane.errors import StoreBusy, StoreUnavailable
from okane.payment import RARE_STATUSES, Payment, Status
from okane.store import Page, PaymentFilter, PaymentLists
from okane.store.lists import WINDOW, is_search, window_of
from okane.store.sql_parameters import first_id

BY_METADATA = PaymentFilter(metadata={"order": "A-1001"})
AT = datetime(2026, 11, 26, 10, 2, 3, tzinfo=UTC)
FIRST = first_id(AT.timestamp())


class Lists:
    """Lists of payments that a test has laid out, each read of which takes some time of its clock."""

    def __init__(self, *pages: Page | Exception, took_s: float = 0.1) -> None:
        self.pages = [*pages]
        self.limits: list[int] = []
        self.now_s = 0.0
        self.took_s = took_s
        self.gate = asyncio.Event()
        self.gate.set()
        self.reached = asyncio.Semaphore(0)

    async def page_without_metadata(
        self, wanted: PaymentFilter, *, account_id: str, limit: int, after: UUID | None = None
    ) -> Page:
        self.reached.release()
        await self.gate.wait()
        self.now_s += self.took_s
        self.limits.append(limit)
        page = self.pages.pop(0)
        if isinstance(page, Exception):
            raise page
        return page


def search(lists: Lists) -> PaymentSearch:
    return PaymentSearch(cast(PaymentLists, lists), SearchTurns(), clock=lambda: lists.now_s)


async def run(one: PaymentSearch, *, session: str = "s", wanted: PaymentFilter = BY_METADATA) -> FoundPayments | None:
    return await one.page(wanted, account_id="default", session_id=session, limit=50)


def some(count: int) -> Sequence[Payment]:
    return [cast(Payment, object())] * count


async def test_windows_are_read_until_the_page_is_full() -> None:
    lists = Lists(Page(some(20), FIRST), Page((), FIRST), Page(some(30), FIRST))
    found = await run(search(lists))
    assert found is not None
    assert (len(found.payments), found.after, found.stopped) == (50, FIRST, False)
    assert lists.limits == [50, 30, 30]


async def test_a_search_that_came_to_the_end_says_so() -> None:
    found = await run(search(Lists(Page((), FIRST), Page(some(1), None))))
    assert found is not None
    assert (len(found.payments), found.after, found.stopped, found.back_to) == (1, None, False, None)


async def test_a_search_ends_after_its_second_and_says_how_far_it_came() -> None:
    lists = Lists(*[Page((), FIRST)] * 100, took_s=BUDGET_S / 4)
    found = await run(search(lists))
    assert found is not None
    assert (found.stopped, found.looked_through, found.after) == (True, 4 * WINDOW, FIRST)
    assert found.back_to == AT
    assert len(lists.pages) == 96


async def test_a_search_begins_no_window_that_would_end_after_its_second() -> None:
    lists = Lists(*[Page((), FIRST)] * 100, took_s=BUDGET_S * 0.3)
    found = await run(search(lists))
    assert found is not None
    assert (found.stopped, found.looked_through) == (True, 3 * WINDOW)
    assert lists.now_s < BUDGET_S


async def test_the_windows_before_one_that_took_too_long_count() -> None:
    found = await run(search(Lists(Page(some(2), FIRST), StoreBusy("canceled"))))
    assert found is not None
    assert (len(found.payments), found.stopped, found.looked_through) == (2, True, WINDOW)
    with pytest.raises(StoreBusy):
        await run(search(Lists(StoreBusy("canceled"))))
    with pytest.raises(StoreUnavailable):
        await run(search(Lists(Page(some(2), FIRST), StoreUnavailable("away"))))


async def test_few_searches_run_at_a_time_and_one_of_a_session() -> None:
    lists = Lists(*[Page((), None)] * 10)
    lists.gate.clear()
    one = search(lists)
    running = [asyncio.create_task(run(one, session=f"s{number}")) for number in range(SEARCHES)]
    for _ in running:
        await lists.reached.acquire()
    assert await run(one, session="another") is None
    lists.gate.set()
    assert all(found is not None for found in await asyncio.gather(*running))
    lists.gate.clear()
    mine = asyncio.create_task(run(one, session="s0"))
    await lists.reached.acquire()
    assert await run(one, session="s0") is None
    listing = asyncio.create_task(run(one, session="s0", wanted=PaymentFilter()))  # a list is no search
    await lists.reached.acquire()
    lists.gate.set()
    assert await mine is not None
    assert await listing is not None


async def test_a_search_that_failed_or_was_given_up_gives_its_turn_back() -> None:
    lists = Lists(StoreUnavailable("away"), Page((), None), Page((), None))
    one = search(lists)
    with pytest.raises(StoreUnavailable):
        await run(one)
    lists.gate.clear()
    gone = asyncio.create_task(run(one))
    await lists.reached.acquire()
    await lists.reached.acquire()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    lists.gate.set()
    assert await run(one) is not None


NOW = datetime(2026, 11, 30, tzinfo=UTC)
SUCCESS = frozenset({Status.SUCCESS})
FILTERS: Sequence[tuple[PaymentFilter, bool]] = (
    (PaymentFilter(), False),
    (PaymentFilter(ascending=True, created_from=NOW, created_before=NOW), False),
    (PaymentFilter(statuses=SUCCESS), False),
    (PaymentFilter(statuses=RARE_STATUSES), False),
    (PaymentFilter(idempotency_key="k", metadata={"a": "b"}), False),
    (PaymentFilter(statuses=frozenset({Status.PENDING})), True),
    (PaymentFilter(statuses=frozenset({Status.PROCESSING, Status.UNKNOWN})), True),
    (PaymentFilter(provider="http"), True),
    (PaymentFilter(provider_ref="ch"), True),
    (PaymentFilter(metadata={"a": "b"}), True),
    (PaymentFilter(amount_min=1), True),
    (PaymentFilter(currency="EUR", statuses=SUCCESS), True),
    (PaymentFilter(updated_from=NOW), True),
    (PaymentFilter(statuses=RARE_STATUSES, amount_max=5), True),
)


@pytest.mark.parametrize(("wanted", "expected"), FILTERS)
def test_what_no_index_answers_is_a_search(wanted: PaymentFilter, expected: bool) -> None:
    assert is_search(wanted) is expected


def test_the_window_of_a_search_by_rare_status_has_no_number() -> None:
    assert window_of(BY_METADATA) == WINDOW
    assert window_of(PaymentFilter(statuses=RARE_STATUSES, amount_max=5)) is None


def test_an_id_tells_when_it_was_made() -> None:
    earlier = AT - timedelta(days=400)
    assert made_about(FIRST) == AT
    assert made_about(first_id(earlier.timestamp())) == earlier
    assert made_about(UUID(int=2**128 - 1)).year == 9999
