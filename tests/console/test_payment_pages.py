"""The page of one payment, and what can be done there."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from okane.api_key import ACCOUNT, Scope
from okane.console import shared_reads
from okane.payment import Status
from okane.store.webhook_endpoints import WebhookEndpointStore
from streams import Draft, Inspector, StreamUnavailable
from tests.console.console_payments import accepted, act, listed, now, settled
from tests.console.served_console import Console, text_of
from tests.okane.stored_payments import LEASE, claimed
from tests.okane.webhook_rows import created, fetch, log_event

MARKUP = "<script>alert(1)</script>\"'&"


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


async def test_a_live_region_is_sent_again_only_after_a_change(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_reads, "SHARED_S", 0.0)  # polls of one time share an answer
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


async def test_the_money_that_is_held_for_a_payment_is_let_go(console: Console) -> None:
    until = datetime.now(UTC) + timedelta(days=1)
    held = await settled(
        console, "k", Status.AUTHORIZED, provider="http", attempt_ref="auth_1", provider_ref=None, capture_before=until
    )
    browser = await console.logged_in(Scope.READ, Scope.WRITE)
    page = text_of((await browser.get(f"/payments/{held.id}")).text)
    assert "Waits for its capture" in page
    assert "is let go at http" in page
    stale = await act(browser, replace(held, version=held.version - 1), "cancel")
    assert (stale.status, "Nothing was done" in text_of(stale.text)) == (409, True)

    answer = await act(browser, held, "cancel")
    assert answer.status == 303
    page = text_of((await browser.get(answer.location)).text)
    assert "The money is being let go. Then the payment is canceled." in page
    assert "Its capture or void is under way." in page
    assert "void requested by console" in page
    assert "Cancel this payment" not in page
    assert (await now(console, held)).status is Status.AUTHORIZED
    again = await act(browser, await now(console, held), "cancel")  # of a page that is older than the void
    assert again.status == 409


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
