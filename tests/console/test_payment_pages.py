"""The list of payments and the page of one, over real payments."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from okane.api_key import ACCOUNT, Scope
from okane.errors import StoreBusy, StoreUnavailable
from okane.payment import Payment, Status
from okane.store.webhook_endpoints import WebhookEndpointStore
from streams import Draft, Inspector, StreamUnavailable
from tests.console.served_console import Browser, Console, text_of
from tests.okane.stored_payments import LEASE, accept_one, claimed, new, settlement
from tests.okane.webhook_rows import created, fetch, log_event

MARKUP = "<script>alert(1)</script>\"'&"


async def accepted(console: Console, key: str = "key-1", *, account: str = ACCOUNT, **more: Any) -> Payment:
    return (await accept_one(console.services.payments, replace(new(key), account_id=account, **more))).payment


async def settled(console: Console, key: str, status: Status, **more: Any) -> Payment:
    payment = await accepted(console, key)
    claim = await claimed(console.services.payments, payment.id)
    await console.services.payments.settle(settlement(claim.payment, status, **more))
    return await now(console, payment)


async def now(console: Console, payment: Payment) -> Payment:
    return await console.services.payments.get(payment.id, account_id=payment.account_id)


def listed(page: str) -> list[str]:
    """Return the ids of the payments on a page, in order."""
    return re.findall(r'id="p-([0-9a-f-]{36})"', page)


async def act(browser: Browser, payment: Payment, action: str, fields: Mapping[str, str] | None = None) -> Any:
    """Send the form of an action that was shown with this version of the payment."""
    return await browser.submit(f"/payments/{payment.id}/{action}", {"version": str(payment.version), **(fields or {})})


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
        ("status=paid", "The statuses are canceled"),
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


async def test_the_page_of_a_payment_tells_its_story(console: Console) -> None:
    payment = await settled(console, "k", Status.FAILED_RETRYABLE, event="unavailable", delay=LEASE, reason="HTTP 503")
    page = await (await console.logged_in(Scope.READ)).get(f"/payments/{payment.id}")
    text = text_of(page.text)
    assert page.status == 200
    assert "4.40 USD failed_retryable" in text
    steps = [
        "accepted under the key k",
        "claimed for attempt 1 by",
        "unavailable , now failed_retryable",
        "charge, test, 5 ms",
    ]
    places = [text.index(step) for step in [*steps, "HTTP 503", "Waits until"]]
    assert places[:4] == sorted(places[:4])
    raw = re.search(r"<pre>(.*?)</pre>", page.text, re.DOTALL)
    assert raw is not None
    assert json.loads(html.unescape(raw[1]))["id"] == str(payment.id)


async def test_the_story_ends_with_the_place_of_the_payment(console: Console) -> None:
    browser = await console.logged_in(Scope.READ)
    payment = await accepted(console)
    page = f"/payments/{payment.id}"
    assert "No wake-up on the stream: the sweep will find it" in text_of((await browser.get(page)).text)
    [entry_id] = await console.services.producer.publish_many([Draft(payment.id.bytes, lane=payment.lane)])
    assert f"In lane low as {entry_id} , not read yet" in text_of((await browser.get(page)).text)
    await claimed(console.services.payments, payment.id)
    assert "Held by console , whose lease lasts until" in text_of((await browser.get(page)).text)
    later = await accepted(console, "later", execute_at=payment.created_at + timedelta(days=1))
    assert "the time that it is scheduled for" in text_of((await browser.get(f"/payments/{later.id}")).text)
    done = await settled(console, "done", Status.SUCCESS)
    assert 'id="place"' not in (await browser.get(f"/payments/{done.id}")).text


async def test_deliveries_and_notices_are_on_the_timeline(console: Console, database_url: str) -> None:
    endpoints = WebhookEndpointStore(database_url)
    endpoint = await created(endpoints)
    await endpoints.aclose()
    payment = await settled(console, "k", Status.SUCCESS)
    position = await log_event(database_url, payment_id=payment.id, version=payment.version)
    await fetch(
        database_url,
        "INSERT INTO webhook_deliveries (endpoint_id, position, state, attempts, status, ms, reason, at)"
        " VALUES (%s, %s, 'given_up', 3, 503, 12, 'HTTP 503', now())",
        endpoint.id,
        position,
    )
    await fetch(
        database_url,
        "INSERT INTO provider_events (provider, event_id, kind, payment_id)"
        " VALUES ('stripe', 'evt_1', 'charge.succeeded', %s)",
        payment.id,
    )
    text = text_of((await (await console.logged_in(Scope.READ)).get(f"/payments/{payment.id}")).text)
    assert "webhook payment.succeeded given_up" in text
    assert "HTTP 503, 12 ms, attempt 3" in text
    assert "notice from stripe: charge.succeeded evt_1" in text


async def test_a_payment_of_another_account_looks_like_none(console: Console) -> None:
    theirs = await accepted(console, account="globex")
    browser = await console.logged_in()
    pages = [await browser.get(f"/payments/{one}") for one in (theirs.id, uuid4(), "nonsense")]
    assert {page.status for page in pages} == {404}
    assert len({re.sub(r"[0-9a-f-]{36}|nonsense", "", page.text) for page in pages}) == 1
    for action in ("cancel", "retry", "resolve"):
        fields = {"as": "success", "reason": "mine now"}
        assert (await act(browser, theirs, action, fields)).status == 404
    assert (await now(console, theirs)).version == 0
    assert listed((await browser.get(f"/payments?q={theirs.id}")).text) == []


async def test_markup_in_texts_is_text(console: Console) -> None:
    payment = await settled(
        console, "k", Status.FAILED_FINAL, event="declined", decline_code=MARKUP, reason=MARKUP, provider_ref=None
    )
    tagged = await accepted(console, "m", metadata={MARKUP: MARKUP})
    browser = await console.logged_in()
    for path in (
        f"/payments/{payment.id}",
        f"/payments/{tagged.id}",
        "/payments?q=%3Cscript%3Ealert(1)%3C/script%3E",
        "/payments?provider=%3Cscript%3Ealert(1)%3C/script%3E",
        "/payments?status=%3Cscript%3E",
    ):
        page = (await browser.get(path)).text
        assert "<script>" not in page, path
        assert "&lt;script&gt;" in page or "status" in path


async def test_a_live_region_is_sent_again_only_after_a_change(console: Console) -> None:
    payment = await settled(console, "k", Status.FAILED_FINAL, event="spent")
    browser = await console.logged_in()
    of_list, of_payment = "/payments?part=1", f"/payments/{payment.id}?part=1"
    tags = {}
    for path in (of_list, of_payment):
        first = await browser.get(path)
        tags[path] = first.headers["ETag"]
        assert "<html" not in first.text
        same = await browser.get(path, If_None_Match=tags[path])
        assert (same.status, same.text) == (304, "")
    await console.services.payments.retry(payment.id, account_id=ACCOUNT, actor="test")
    for path, tag in tags.items():
        assert (await browser.get(path, If_None_Match=tag)).status == 200


async def test_a_payment_is_canceled(console: Console) -> None:
    payment = await accepted(console)
    browser = await console.logged_in(Scope.READ, Scope.WRITE)
    assert "Cancel this payment" in (await browser.get(f"/payments/{payment.id}")).text
    answer = await act(browser, payment, "cancel")
    assert (answer.status, answer.location) == (303, f"/console/payments/{payment.id}")
    page = text_of((await browser.get(answer.location)).text)
    assert "The payment is canceled. It will not be charged." in page
    assert "Cancel this payment" not in page
    event = (await console.services.payments.events(payment.id))[-1]
    assert (event.event, event.actor) == ("canceled", f"console {browser.secret[:20]}")


async def test_a_failed_payment_is_retried_and_woken(console: Console) -> None:
    payment = await settled(console, "k", Status.FAILED_FINAL, event="declined", decline_code="no")
    browser = await console.logged_in(Scope.READ, Scope.WRITE)
    answer = await act(browser, payment, "retry")
    assert answer.status == 303
    assert "pending again, and its wake-up is sent" in text_of((await browser.get(answer.location)).text)
    assert (await now(console, payment)).status is Status.PENDING
    assert (await console.services.inspector.stats()).depth == 1


@pytest.mark.parametrize(("decision", "ref"), [("success", "ch_7"), ("failed_final", "")])
async def test_a_payment_that_needs_a_review_is_decided(console: Console, decision: str, ref: str) -> None:
    payment = await settled(console, "k", Status.NEEDS_REVIEW, event="needs_review", reason="open for a day")
    browser = await console.logged_in(Scope.READ, Scope.OPERATE)
    page = (await browser.get(f"/payments/{payment.id}")).text
    assert "Waits for a decision." in text_of(page)
    assert f'name="version" value="{payment.version}"' in page
    answer = await act(browser, payment, "resolve", {"as": decision, "reason": "seen there", "provider_ref": ref})
    assert answer.status == 303
    decided = await now(console, payment)
    assert (decided.status.value, decided.provider_ref) == (decision, ref or None)
    event = (await console.services.payments.events(payment.id))[-1]
    assert (event.event, event.reason) == ("resolved", "seen there")


@pytest.mark.parametrize(
    ("fields", "status", "problem"),
    [
        ({"as": "pending", "reason": "x"}, 400, "A decision is success or failed_final."),
        ({"reason": "x"}, 400, "A decision is"),
        ({"as": "success", "reason": " "}, 422, "The reason must have 1 to 500 characters."),
        ({"as": "success", "reason": "x" * 501}, 422, "1 to 500"),
        ({"as": "success", "reason": "4242 4242 4242 4242"}, 422, "looks like the number of a card"),
        ({"as": "failed_final", "reason": "x", "provider_ref": "ch_1"}, 422, "goes with success only"),
        ({"as": "success", "reason": "x", "provider_ref": "4242424242424242"}, 422, "number of a card"),
        ({"as": "success", "reason": "x", "version": ""}, 400, "which version"),
        ({"as": "success", "reason": "x", "version": "1e9"}, 400, "which version"),
    ],
)
async def test_a_wrong_decision_says_what_is_wrong_and_changes_nothing(
    console: Console, fields: Mapping[str, str], status: int, problem: str
) -> None:
    payment = await settled(console, "k", Status.NEEDS_REVIEW, event="needs_review")
    answer = await act(await console.logged_in(), payment, "resolve", fields)
    assert answer.status == status
    assert problem in text_of(answer.text)
    assert (await now(console, payment)).version == payment.version


@pytest.mark.parametrize("action", ["cancel", "retry", "resolve"])
async def test_a_stale_form_changes_nothing_and_shows_the_payment_as_it_is(console: Console, action: str) -> None:
    status = Status.NEEDS_REVIEW if action == "resolve" else Status.FAILED_RETRYABLE
    payment = await settled(console, "k", status, event="unavailable", delay=LEASE)
    answer = await act(await console.logged_in(), replace(payment, version=1), action, {"as": "success", "reason": "x"})
    assert answer.status == 409
    text = text_of(answer.text)
    assert (
        f"Nothing was done: the payment has changed: it was decided by version 1, and is {status} in version 2" in text
    )
    assert "claimed for attempt 1" in text  # the page of the payment, as it is now
    assert (await now(console, payment)).version == payment.version


async def test_an_action_that_came_too_late_is_refused_in_words(console: Console) -> None:
    payment = await settled(console, "k", Status.SUCCESS)
    answer = await act(await console.logged_in(), payment, "cancel")
    assert answer.status == 409
    assert "a payment that is success cannot be canceled" in text_of(answer.text)


async def test_a_key_that_reads_sees_no_buttons_and_may_not_act(console: Console) -> None:
    browser = await console.logged_in(Scope.READ)
    waiting = await accepted(console)
    review = await settled(console, "r", Status.NEEDS_REVIEW, event="needs_review")
    for payment, action in ((waiting, "cancel"), (waiting, "retry"), (review, "resolve")):
        page = (await browser.get(f"/payments/{payment.id}")).text
        assert "<dialog" not in page
        assert (await act(browser, payment, action, {"as": "success", "reason": "x"})).status == 403
        assert (await now(console, payment)).version == payment.version


async def test_a_search_that_is_too_long_says_so_and_is_not_repeated(console: Console) -> None:
    browser = await console.logged_in(Scope.READ)
    page = await browser.get(f"/payments?q={'x' * 3_000}")
    assert page.status == 400
    assert "A search has up to 500 characters" in text_of(page.text)
    assert "x" * 502 not in page.text
    # The server reads no address of ten kilobytes: no page of the console sends one.
    longer = await browser.get(f"/payments?q={'x' * 10_000}")
    assert longer.status == 414
    assert "up to 4096 bytes" in longer.text


@pytest.mark.parametrize(
    ("error", "said"), [(StoreUnavailable("gone"), "does not answer"), (StoreBusy("canceled"), "is too busy")]
)
async def test_while_postgres_is_away_the_page_says_so_and_keeps_the_filter(
    console: Console, monkeypatch: pytest.MonkeyPatch, error: StoreUnavailable, said: str
) -> None:
    browser = await console.logged_in(Scope.READ)

    async def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(console.services.lists, "page", fail)
    page = await browser.get("/payments?provider=http")
    assert page.status == 503
    assert f"Postgres {said}: the payments cannot be read." in text_of(page.text)
    assert 'name="provider" value="http"' in page.text
    part = await browser.get("/payments?part=1")
    assert (part.status, "<" in part.text) == (503, False)


async def test_a_search_that_has_to_wait_says_for_how_long(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = await console.logged_in(Scope.READ)
    monkeypatch.setattr("okane.console.payment_search.SEARCHES", 0)
    page = await browser.get("/payments?q=metadata.order=7")
    assert (page.status, page.headers["Retry-After"]) == (429, "2")
    assert "Too many searches run at this moment" in text_of(page.text)
    assert (await browser.get("/payments")).status == 200


async def test_while_redis_is_away_a_payment_is_shown_without_its_place(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = await accepted(console)
    browser = await console.logged_in(Scope.READ)

    async def fail(*_: object, **__: object) -> None:
        raise StreamUnavailable("gone")

    monkeypatch.setattr(Inspector, "entry_of", fail)
    page = await browser.get(f"/payments/{payment.id}")
    assert page.status == 200
    assert "Redis does not answer, so its place on the stream is not known." in text_of(page.text)


async def test_a_live_region_differs_with_what_the_session_may_do(console: Console) -> None:
    payment = await accepted(console)
    path = f"/payments/{payment.id}?part=1"
    writer, reader = await console.logged_in(), await console.logged_in(Scope.READ)
    tag = (await writer.get(path)).headers["ETag"]
    assert "<dialog" not in (await reader.get(path, If_None_Match=tag)).text
    assert (await reader.get(path, If_None_Match=tag)).status == 200
    assert (await writer.get(path, If_None_Match=tag)).status == 304
    await console.services.producer.publish_many([Draft(payment.id.bytes, lane=payment.lane)])
    assert "not read yet" in (await writer.get(path, If_None_Match=tag)).text  # a change without a new version
