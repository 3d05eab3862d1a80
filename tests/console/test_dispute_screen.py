"""The page of the disputes, and the ways that lead to it."""

from __future__ import annotations

import re
from uuid import UUID

import pytest

from okane.api_key import ACCOUNT, Scope
from okane.payment import Payment
from okane.payment_id import PaymentId
from okane.store import disputes
from tests.console.console_payments import accepted
from tests.console.served_console import Console, text_of
from tests.okane.stored_operations import charged
from tests.okane.webhook_rows import fetch


async def disputed(
    url: str, payment: Payment, ref: str, status: str = "needs_response", *, provider: str = "stripe"
) -> UUID:
    """Write a dispute of a payment, as a worker does that has fetched it."""
    id_ = UUID(int=PaymentId().int)
    insert = "INSERT INTO disputes (id, payment_id, account_id, provider, provider_ref, amount_minor, currency, reason,"
    insert += " status, due_by) VALUES (%s, %s, %s, %s, %s, 440, 'USD', 'fraudulent', %s, '2026-12-09T23:59:59Z')"
    await fetch(url, insert, id_, payment.id, payment.account_id, provider, ref, status)
    return id_


def listed(page: str) -> list[UUID]:
    return [UUID(text) for text in re.findall(r'id="d-([0-9a-f-]{36})"', page)]


async def test_the_disputes_of_an_account_are_listed_newest_first_by_what_is_asked_for(
    console: Console, database_url: str
) -> None:
    browser = await console.logged_in(Scope.READ)
    assert "This account has no disputes." in text_of((await browser.get("/disputes")).text)
    payment, other = await accepted(console), await accepted(console, "other")
    await disputed(database_url, await accepted(console, account="globex"), "theirs")
    opened = await disputed(database_url, payment, "dp_1")
    won = await disputed(database_url, payment, "dp_2", "won", provider="http")
    lost = await disputed(database_url, other, "dp_3", "lost")
    page = await browser.get("/disputes")
    assert listed(page.text) == [lost, won, opened]
    text = text_of(page.text)
    assert f"{payment.id} 4.40 USD needs_response 2026-12-09 23:59:59.000 UTC fraudulent stripe dp_1" in text
    assert f'href="/console/payments/{payment.id}"' in page.text
    for query, expected in (
        ("status=won&status=lost", [lost, won]),
        ("provider=stripe", [lost, opened]),
        (f"payment={payment.id}", [won, opened]),
        (f"payment={payment.id}&status=won&provider=http", [won]),
        ("status=closed", []),
        ("status=", [lost, won, opened]),
    ):
        assert listed((await browser.get(f"/disputes?{query}")).text) == expected, query
    assert "No dispute matches this filter." in text_of((await browser.get("/disputes?status=closed")).text)
    for query, problem in (
        ("status=open", "The field status is one of needs_response"),
        ("payment=x", "The field payment is the id of a payment."),
        ("after=x", "The field after is not a place in the list"),
        ("provider=%00", "The field provider has up to 200 printable characters."),
    ):
        answer = await browser.get(f"/disputes?{query}")
        assert (answer.status, problem in text_of(answer.text)) == (400, True), query


async def test_a_second_page_goes_on_with_the_filter(
    console: Console, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("okane.console.disputes.PAGE", 2)
    payment = await accepted(console)
    ids = [await disputed(database_url, payment, f"dp_{number}", "won") for number in range(4)]
    browser = await console.logged_in(Scope.READ)
    first = await browser.get("/disputes?status=won")
    assert listed(first.text) == [ids[3], ids[2]]
    older = re.search(r'href="([^"]*)">Older', first.text)
    assert older is not None
    second = await browser.get(older[1].replace("&amp;", "&"))
    assert listed(second.text) == [ids[1], ids[0]]
    assert ">Older" not in second.text
    assert 'href="/console/disputes?status=won">Newest' in second.text
    assert "No older disputes." in text_of((await browser.get(f"/disputes?after={ids[0]}")).text)


async def test_a_filter_that_matches_few_reads_a_bounded_number_and_goes_on(
    console: Console, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disputes, "WINDOW", 2)
    monkeypatch.setattr("okane.console.disputes.WINDOW", 2)
    payment = await accepted(console)
    lost = await disputed(database_url, payment, "dp_0", "lost")
    for number in range(1, 4):
        await disputed(database_url, payment, f"dp_{number}", "won")
    browser = await console.logged_in(Scope.READ)
    first = await browser.get("/disputes?status=lost")
    assert "None among 2 disputes. There may be older ones." in text_of(first.text)
    further = re.search(r'href="([^"]*)">Search further back', first.text)
    assert further is not None
    assert listed((await browser.get(further[1].replace("&amp;", "&"))).text) == [lost]


async def test_a_payment_and_the_overview_lead_to_its_disputes(console: Console, database_url: str) -> None:
    payment = await charged(console.services.payments)
    await disputed(database_url, payment, "dp_1")
    await disputed(database_url, payment, "dp_2", "won")
    event = "INSERT INTO payment_events (payment_id, version, event, status, attempt, actor, reason)"
    event += " VALUES (%s, 3, 'dispute_opened', 'success', 1, 'worker-1', 'stripe dp_1: fraudulent, needs_response')"
    await fetch(database_url, event, payment.id)
    await fetch(database_url, "UPDATE payments SET version = 3 WHERE id = %s", payment.id)
    browser = await console.logged_in()
    page = (await browser.get(f"/payments/{payment.id}")).text
    assert f'href="/console/disputes?payment={payment.id}"' in page
    assert 'href="#disputes">Disputes of this payment' in page
    text = text_of(page)
    assert "dispute opened" in text
    assert text.index("stripe dp_1 4.40 USD needs_response") < text.index("stripe dp_2 4.40 USD won")
    overview = (await browser.get("/")).text
    assert "1 dispute waits for evidence at stripe" in text_of(overview)
    assert 'href="/console/disputes?status=needs_response&amp;provider=stripe"' in overview
    assert payment.account_id == ACCOUNT
