"""Dead letters in the console: filters, the dry run, and actions that do what it has shown or nothing."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import pytest

from okane.api_key import Scope
from okane.errors import StoreSlow
from okane.payment import Status
from okane.store import DeadLetterStore, DeadPayment, PaymentStore
from tests.console.served_console import Answer, Browser, Console, text_of
from tests.okane.stored_payments import accept_one, claimed, new, settlement
from tests.okane.webhook_rows import fetch


async def given_up(
    console: Console, count: int, *, key: str = "k", reason: str = "HTTP 503", currency: str = "USD"
) -> list[UUID]:
    """Payments that have spent their retries, oldest first."""
    store: PaymentStore = console.services.payments
    ids = []
    for number in range(count):
        payment = (await accept_one(store, replace(new(f"{key}{number}"), currency=currency))).payment
        claim = await claimed(store, payment.id)
        await store.settle(settlement(claim.payment, Status.FAILED_FINAL, event="spent", reason=reason))
        ids.append(payment.id)
    return ids


async def in_review(console: Console) -> UUID:
    payment_id = (await accept_one(console.services.payments, new("poison"))).payment.id
    assert await console.services.payments.bury(payment_id, reason="poison")
    return payment_id


def fields_of(page: str) -> dict[str, str]:
    """Return the hidden fields of the form that confirms a dry run."""
    return {
        name: html.unescape(value)
        for name, value in re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page)
        if name not in {"csrf", "version"}
    }


async def dry_run(browser: Browser, action: str, **query: object) -> Answer:
    answer = await browser.get(f"/dead/{action}?{urlencode(query, doseq=True)}")
    assert answer.status == HTTPStatus.OK, text_of(answer.text)
    return answer


async def statuses(console: Console, database_url: str) -> dict[UUID, str]:
    return dict(await fetch(database_url, "SELECT id, status FROM payments"))


async def test_the_list_shows_and_filters(console: Console) -> None:
    ids, review = await given_up(console, 2, reason="<b>declined</b>"), await in_review(console)
    browser = await console.logged_in(Scope.READ)
    page = (await browser.get("/dead")).text
    assert all(str(one) in page for one in (*ids, review))
    assert "&lt;b&gt;declined&lt;/b&gt;" in page
    assert "<b>declined" not in page
    assert "Replay" not in page
    only = (await browser.get("/dead?status=needs_review")).text
    assert str(review) in only
    assert str(ids[0]) not in only
    assert "No dead letter matches this filter" in (await browser.get("/dead?currency=EUR")).text


async def test_the_list_says_how_many_there_are_and_since_when(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("okane.console.dead_letters.TALLY_S", 0.0)
    browser = await console.logged_in(Scope.READ)
    assert "dead letters, the oldest" not in text_of((await browser.get("/dead")).text)
    await given_up(console, 2)
    await given_up(console, 1, key="euro", currency="EUR")
    since = r"since 2\d{3}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} UTC \(\d"
    assert re.search(
        rf"> 3 dead letters, the oldest {since}".removeprefix("> "), text_of((await browser.get("/dead")).text)
    )
    assert re.search(
        f" 1 dead letter matches, the oldest {since}", text_of((await browser.get("/dead?currency=EUR")).text)
    )
    monkeypatch.setattr("okane.store.dead_letters.TALLIED", 1)
    assert re.search(f"More than 1 dead letters, the oldest {since}", text_of((await browser.get("/dead")).text))


async def test_another_account_sees_and_changes_none_of_them(console: Console, database_url: str) -> None:
    [payment_id] = await given_up(console, 1)
    other = await console.logged_in(account="other")
    assert str(payment_id) not in (await other.get("/dead")).text
    own = fields_of((await dry_run(await console.logged_in(), "purge")).text)
    for action in ("replay", "purge"):
        answer = await other.submit(f"/dead/{action}", {**own, "typed": "1"})
        assert answer.status == HTTPStatus.CONFLICT
    [(dead,)] = await fetch(database_url, "SELECT count(*) FROM payments WHERE dead_at IS NOT NULL")
    assert dead == 1


async def test_a_dry_run_counts_and_changes_nothing(console: Console, database_url: str) -> None:
    await given_up(console, 2)
    await in_review(console)
    before = await statuses(console, database_url)
    page = await dry_run(await console.logged_in(), "replay")
    assert "would retry 2 , keep 1" in text_of(page.text)
    assert await statuses(console, database_url) == before


async def test_a_replay_retries_the_payments_of_its_dry_run(console: Console, database_url: str) -> None:
    ids, review = await given_up(console, 3), await in_review(console)
    browser = await console.logged_in()
    form = fields_of((await dry_run(browser, "replay", limit=2)).text)
    later = await given_up(console, 1, key="later")  # it does not disturb: it is not among the oldest two
    answer = await browser.submit("/dead/replay", form)
    assert answer.status == HTTPStatus.SEE_OTHER
    found = await statuses(console, database_url)
    assert [found[one] for one in (*ids, *later)] == ["pending", "pending", "failed_final", "failed_final"]
    assert found[review] == "needs_review"
    assert "Retried 2." in text_of((await browser.get(answer.location)).text)
    query = "SELECT actor FROM payment_events WHERE payment_id = %s AND event = 'retried'"
    [(actor,)] = await fetch(database_url, query, ids[0])
    assert actor.startswith("console sk_test_")
    [(action, count, said)] = await fetch(
        database_url, "SELECT action, count, answer FROM console_audit WHERE answer LIKE 'retried%%'"
    )
    assert (action, count, said) == ("replay dead letters", 2, "retried 2, kept 0")


async def test_a_selection_that_has_changed_is_shown_again_and_not_touched(console: Console, database_url: str) -> None:
    ids = await given_up(console, 2)
    browser = await console.logged_in()
    form = fields_of((await dry_run(browser, "replay")).text)
    await console.services.payments.retry(ids[0], account_id="default", actor="operator")
    answer = await browser.submit("/dead/replay", form)
    assert answer.status == HTTPStatus.CONFLICT
    assert "have changed since the dry run" in answer.text
    assert "would retry 1" in text_of(answer.text)
    assert (await statuses(console, database_url))[ids[1]] == "failed_final"
    again = await browser.submit("/dead/replay", fields_of(answer.text))
    assert again.status == HTTPStatus.SEE_OTHER
    assert (await statuses(console, database_url))[ids[1]] == "pending"


@pytest.mark.parametrize("action", ["replay", "purge"])
async def test_a_payment_that_fails_again_after_the_check_is_left_alone(
    console: Console, database_url: str, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    ids = await given_up(console, 2)
    browser = await console.logged_in()
    form = fields_of((await dry_run(browser, action)).text)
    store, select = console.services.payments, DeadLetterStore.oldest

    async def select_and_lose(*arguments: Any) -> Sequence[DeadPayment]:
        """Another replay of the same selection comes first, and its charge fails, too."""
        found = await select(*arguments)
        await store.retry(ids[0], account_id="default", actor="operator")
        claim = await claimed(store, ids[0])
        await store.settle(settlement(claim.payment, Status.FAILED_FINAL, event="spent", reason="HTTP 503"))
        return found

    monkeypatch.setattr(DeadLetterStore, "oldest", select_and_lose)
    answer = await browser.submit(f"/dead/{action}", {**form, "typed": "2"})
    assert answer.status == HTTPStatus.SEE_OTHER
    [(status, dead_at)] = await fetch(database_url, "SELECT status, dead_at FROM payments WHERE id = %s", ids[0])
    assert (status, dead_at is None) == ("failed_final", False)
    [(count, said)] = await fetch(
        database_url, "SELECT count, answer FROM console_audit WHERE begun IS NOT NULL ORDER BY id DESC LIMIT 1"
    )
    assert (count, said) == (1, "retried 1, kept 1" if action == "replay" else "purged 1")


async def test_chosen_payments_alone_are_replayed(console: Console, database_url: str) -> None:
    ids = await given_up(console, 3)
    browser = await console.logged_in()
    form = fields_of((await dry_run(browser, "replay", id=[ids[1]])).text)
    assert (await browser.submit("/dead/replay", form)).status == HTTPStatus.SEE_OTHER
    found = await statuses(console, database_url)
    assert [found[one] for one in ids] == ["failed_final", "pending", "failed_final"]


@pytest.mark.parametrize("typed", ["", "1", "3", "two"])
async def test_a_purge_takes_the_typed_count(console: Console, database_url: str, typed: str) -> None:
    await given_up(console, 2)
    browser = await console.logged_in()
    form = fields_of((await dry_run(browser, "purge")).text)
    answer = await browser.submit("/dead/purge", {**form, "typed": typed})
    assert answer.status == HTTPStatus.BAD_REQUEST, text_of(answer.text)
    [(dead,)] = await fetch(database_url, "SELECT count(*) FROM payments WHERE dead_at IS NOT NULL")
    assert dead == 2
    answer = await browser.submit("/dead/purge", {**form, "typed": "2"})
    assert answer.status == HTTPStatus.SEE_OTHER
    rows = await fetch(database_url, "SELECT status, dead_at FROM payments")
    assert rows == [("failed_final", None)] * 2


async def test_actions_need_their_scope(console: Console) -> None:
    await given_up(console, 1)
    form = fields_of((await dry_run(await console.logged_in(), "purge")).text)
    for action in ("replay", "purge"):
        reader = await console.logged_in(Scope.READ, Scope.WRITE)
        answer = await reader.submit(f"/dead/{action}", {**form, "typed": "1"})
        assert answer.status == HTTPStatus.FORBIDDEN


async def test_a_dry_run_over_a_long_list_says_how_far_it_looked_and_goes_on(
    console: Console, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await given_up(console, 5)
    [wanted] = await given_up(console, 1, key="euro", currency="EUR")
    for module in ("okane.store.dead_letters", "okane.console.dead_letter_selection"):
        monkeypatch.setattr(f"{module}.WINDOW", 2)
    monkeypatch.setattr("okane.console.search_windows.BUDGET_S", 0.0)
    browser = await console.logged_in()
    page = await dry_run(browser, "replay", currency="EUR", limit=1)
    for _ in range(2):
        assert "None so far. Looked through 2 dead letters from the oldest on, up to" in text_of(page.text)
        assert "There are later ones." in text_of(page.text)
        page = await browser.get(html.unescape(re.findall(r'href="([^"]*)">Look further', page.text)[0]))
    assert "would retry 1" in text_of(page.text)
    answer = await browser.submit("/dead/replay", fields_of(page.text))
    assert answer.status == HTTPStatus.SEE_OTHER, text_of(answer.text)
    found = await statuses(console, database_url)
    assert [one for one, status in found.items() if status == "pending"] == [wanted]


async def test_a_dry_run_waits_for_its_turn_like_every_search(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("okane.console.search_turns.SEARCHES", 0)
    answer = await (await console.logged_in()).get("/dead/purge")
    assert (answer.status, answer.headers["Retry-After"]) == (HTTPStatus.TOO_MANY_REQUESTS, "2")
    assert "Too many searches run at this moment. Try again in 2 s." in text_of(answer.text)


async def test_a_list_that_takes_too_long_is_not_an_outage(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise StoreSlow("canceling statement due to statement timeout")

    browser = await console.logged_in()
    monkeypatch.setattr(console.services.dead_letters, "search", fail)
    monkeypatch.setattr(console.services.dead_letters, "look", fail)
    for path in ("/dead", "/dead/replay"):
        answer = await browser.get(path)
        assert answer.status == HTTPStatus.SERVICE_UNAVAILABLE
        assert "Postgres works, but reading this took too long." in text_of(answer.text)
