"""The list of payments: pages, filters and searches."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from uuid import uuid4

import pytest

from okane.api_key import Scope
from okane.errors import StoreBusy, StoreSlow, StoreUnavailable
from okane.payment import Status
from okane.store.metadata_index import set_metadata_index
from tests.console.console_payments import accepted, listed, settled
from tests.console.served_console import Console, text_of


async def test_the_list_begins_with_the_newest_and_has_pages(console: Console) -> None:
    ids = [str((await accepted(console, f"k{number}")).id) for number in range(52)][::-1]
    browser = await console.logged_in(Scope.READ)
    first = await browser.get("/payments")
    assert listed(first.text) == ids[:50]
    older = re.search(r'href="([^"]*)">Older<', first.text)
    assert older is not None
    second = await browser.get(html.unescape(older[1]))
    assert listed(second.text) == ids[50:]
    assert ">Older<" not in second.text
    assert ">Newest<" in second.text
    assert "data-live" in first.text
    assert "data-live" not in second.text  # an older page stays as it is


async def test_a_list_without_payments_says_so_and_names_the_filter_to_drop(console: Console) -> None:
    browser = await console.logged_in(Scope.READ)
    assert "This account has no payments yet." in text_of((await browser.get("/payments")).text)
    page = (await browser.get("/payments?status=needs_review&currency=EUR&amount_from=10")).text
    assert "No payment of this account matches. Look without: status , currency , amount from" in text_of(page)
    assert 'href="/console/payments?currency=EUR&amp;amount_from=10"' in page


async def test_filters_choose_payments(console: Console) -> None:
    paid = await settled(console, "paid", Status.SUCCESS)
    failed = await settled(console, "failed", Status.FAILED_FINAL, decline_code="card_declined")
    large = await accepted(console, "large", amount_minor=123_456)
    yen = await accepted(console, "yen", currency="JPY", amount_minor=500)
    browser = await console.logged_in(Scope.READ)

    async def found(query: str) -> set[str]:
        page = await browser.get(f"/payments?{query}")
        assert page.status == 200, text_of(page.text)
        return set(listed(page.text))

    assert await found("status=success") == {str(paid.id)}
    assert await found("status=success&status=failed_final") == {str(paid.id), str(failed.id)}
    assert await found("currency=USD&amount_from=1,234.56") == {str(large.id)}
    assert await found("currency=USD&amount_to=4.40") == {str(paid.id), str(failed.id)}
    assert await found("currency=JPY&amount_from=500&amount_to=500") == {str(yen.id)}
    assert await found("provider=test") == {str(paid.id), str(failed.id)}
    assert await found("from=2020-01-01&to=2020-01-02T08:00") == set()
    assert len(await found("from=2020-01-01")) == 4
    assert await found("nonsense=1") == {str(one.id) for one in (paid, failed, large, yen)}


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("status=paid", "The statuses are authorized, canceled"),
        ("currency=usd", "three capital letters"),
        ("amount_from=10", "An amount takes a currency"),
        ("currency=USD&amount_from=1.234", "looks like 1,234.55"),
        ("currency=JPY&amount_to=1.5", "looks like 1,234."),
        ("currency=USD&amount_to=-1", "looks like"),
        ("currency=USD&amount_to=9999999999999999", "No payment is that large"),
        ("from=yesterday", "A time looks like 2026-11-30"),
        ("to=2026-13-01", "A time looks like"),
        ("after=xyz", "begin with the newest"),
        ("q=" + "x" * 501, "up to 500 characters"),
        ("q=key:a%20b", "no spaces"),
        ("q=a%00b", "NUL"),
        ("provider=" + "x" * 501, "up to 500 characters"),
    ],
)
async def test_a_filter_that_means_nothing_says_what_is_wrong(console: Console, query: str, problem: str) -> None:
    await accepted(console)
    page = await (await console.logged_in(Scope.READ)).get(f"/payments?{query}")
    assert page.status == 400
    assert problem in text_of(page.text)
    assert listed(page.text) == []


async def test_an_id_or_a_key_at_the_provider_leads_to_its_payment(console: Console) -> None:
    payment = await accepted(console)
    browser = await console.logged_in(Scope.READ)
    for text in (str(payment.id), f"pay_{payment.id.hex}", f"{payment.id}:3"):
        answer = await browser.get(f"/payments?q={text}")
        assert (answer.status, answer.location) == (303, f"/console/payments/{payment.id}")


async def test_an_id_that_is_none_is_searched_as_a_key_and_the_page_says_so(console: Console) -> None:
    key = str(uuid4())
    payment = await accepted(console, key)
    page = await (await console.logged_in(Scope.READ)).get(f"/payments?q={key}")
    assert listed(page.text) == [str(payment.id)]
    assert f"no payment with this id. Searched for the idempotency key {key}" in text_of(page.text)


async def test_a_search_states_its_meaning_and_offers_the_others(console: Console) -> None:
    payment = await accepted(console, "A-1", metadata={"order": "A-1001"})
    paid = await settled(console, "B-1", Status.SUCCESS, provider_ref="ch_9")
    browser = await console.logged_in(Scope.READ)
    by_key = await browser.get("/payments?q=A-1")
    assert listed(by_key.text) == [str(payment.id)]
    assert "Searched for the idempotency key A-1 ; instead: the provider's reference" in text_of(by_key.text)
    by_metadata = await browser.get("/payments?q=metadata.order=A-1001")
    assert listed(by_metadata.text) == [str(payment.id)]
    assert "Searched for the metadata order = A-1001" in text_of(by_metadata.text)
    assert "data-live" not in by_metadata.text
    assert listed((await browser.get("/payments?q=ref:ch_9")).text) == [str(paid.id)]


async def test_a_search_that_is_too_long_says_so_and_is_not_repeated(console: Console) -> None:
    browser = await console.logged_in(Scope.READ)
    page = await browser.get(f"/payments?q={'x' * 3_000}")
    assert page.status == 400
    assert "A search has up to 500 characters" in text_of(page.text)
    assert "x" * 502 not in page.text
    longer = await browser.get(f"/payments?q={'x' * 10_000}")  # an address that the server does not read
    assert longer.status == 414
    assert "A search takes up to 500 characters" in text_of(longer.text)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StoreUnavailable("gone"), "does not answer"),
        (StoreBusy("locked"), "is too busy"),
        (StoreSlow("canceled"), "took too long"),
    ],
)
async def test_while_postgres_is_away_the_page_says_so_and_keeps_the_filter(
    console: Console, monkeypatch: pytest.MonkeyPatch, error: StoreUnavailable, said: str
) -> None:
    browser = await console.logged_in(Scope.READ)

    async def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(console.services.lists, "page_without_metadata", fail)
    page = await browser.get("/payments?provider=http")
    assert page.status == 503
    assert re.search(rf"Postgres {said}( since \S+ \S+ UTC )?: the payments cannot be read\.", text_of(page.text))
    assert 'name="provider" value="http"' in page.text
    part = await browser.get("/payments?part=1")
    assert (part.status, "<" in part.text) == (503, False)


async def test_a_search_that_has_to_wait_says_for_how_long(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = await console.logged_in(Scope.READ)
    monkeypatch.setattr("okane.console.search_turns.SEARCHES", 0)
    page = await browser.get("/payments?q=metadata.order=7")
    assert (page.status, page.headers["Retry-After"]) == (429, "2")
    assert "Too many searches run at this moment" in text_of(page.text)
    assert (await browser.get("/payments")).status == 200


async def test_metadata_is_found_by_its_index_where_there_is_one(
    console: Console, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = await accepted(console, "A-1", metadata={"order": "A-1001"})
    await set_metadata_index(database_url, wanted=True, wait=timedelta(seconds=30))
    browser = await console.logged_in(Scope.READ)

    async def fail(*_: object, **__: object) -> None:
        raise StoreUnavailable("no window is read")

    monkeypatch.setattr(console.services.lists, "page", fail)
    page = await browser.get("/payments?q=metadata.order%3DA-1001")
    assert listed(page.text) == [str(payment.id)]
    assert "No payment of this account matches" in (await browser.get("/payments?q=metadata.order%3DB-1")).text
