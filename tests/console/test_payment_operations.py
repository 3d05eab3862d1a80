"""Captures, voids and refunds on the page of their payment: requested, followed, and decided there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from okane.api_key import ACCOUNT, Scope
from okane.operation import Operation, OperationKind, OperationStatus
from okane.payment import Payment, Status
from okane.store.operations import OperationStore
from streams import StreamUnavailable
from streams.producer import Producer
from tests.console.console_payments import act, now
from tests.console.served_console import Answer, Browser, Console, serve_console, text_of
from tests.okane.stored_operations import asked, assert_books_agree, authorized, charged, claim_of, done, outcome
from tests.okane.stored_payments import GRACE, LEASE

WRITER = (Scope.READ, Scope.WRITE)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[OperationStore]:
    """The store of a worker."""
    opened = OperationStore(database_url, actor="worker-1", lease=LEASE, grace=GRACE)
    yield opened
    await opened.aclose()


async def operations_of(console: Console, payment: Payment) -> list[Operation]:
    details = await console.services.details.read(payment.id, account_id=ACCOUNT)
    assert details is not None
    return [*details.operations]


async def page_of(browser: Browser, payment: Payment) -> str:
    answer = await browser.get(f"/payments/{payment.id}")
    assert answer.status == 200
    return text_of(answer.text)


async def decide(browser: Browser, operation: Operation, action: str, **fields: str) -> Answer:
    """Send the form of an action that was shown with this version of the operation."""
    path = f"/payments/{operation.payment_id}/operations/{operation.id}/{action}"
    return await browser.submit(path, {"version": str(operation.version), **fields})


async def settle(store: OperationStore, operation: Operation, status: OperationStatus, **more: object) -> Operation:
    """Have a worker execute an operation."""
    claim = await claim_of(store, operation.id)
    assert await store.settle(outcome(claim.operation, status, **more)) is not None
    return await store.get(operation.id)


@pytest.mark.parametrize(("amount", "taken"), [("4.40", 440), ("1.5", 150)])
async def test_held_money_is_captured_in_whole_or_in_part(
    console: Console, store: OperationStore, amount: str, taken: int
) -> None:
    payment = await authorized(console.services.payments)
    browser = await console.logged_in(*WRITER)
    shown = (await browser.get(f"/payments/{payment.id}")).text
    assert "Amount in USD, 4.40 USD at most" in shown
    assert 'name="amount" value="4.40"' in shown
    answer = await act(browser, payment, "capture", {"amount": amount})
    assert (answer.status, answer.location) == (303, f"/console/payments/{payment.id}")
    page = await page_of(browser, payment)
    assert f"The capture of {taken / 100:.2f} USD is requested, and its wake-up is sent." in page
    assert "Capture…" not in page
    assert "Refund…" not in page
    [capture] = await operations_of(console, payment)
    await settle(store, capture, OperationStatus.SUCCESS, provider_ref="cap_1")
    page = await page_of(browser, payment)
    actor = f"console {browser.secret[:20]}"
    steps = [
        f"capture requested by {actor}",
        "capture claimed for attempt 1 by worker-1",
        f"captured , {taken / 100:.2f} USD, now success",
    ]
    assert [page.index(step) for step in steps] == sorted(page.index(step) for step in steps)
    assert "operate, http, 5 ms" in page  # the call, on the line of the payment's event
    assert "capture success" not in page  # which is no line of its own
    after = await now(console, payment)
    assert (after.status, after.captured_minor) == (Status.SUCCESS, taken)
    audited = (await console.services.audit.page(limit=1))[0]
    assert (audited.action, audited.target) == ("capture payment", str(payment.id))
    assert audited.answer == f"requested {taken / 100:.2f} USD: capture {capture.id}"


async def test_several_refunds_give_back_no_more_than_there_is(
    console: Console, store: OperationStore, database_url: str
) -> None:
    payment = await charged(console.services.payments)
    browser = await console.logged_in(*WRITER)
    assert (await act(browser, payment, "refund", {"amount": "1.00", "reason": "a scratch"})).status == 303
    payment = await now(console, payment)
    page = (await browser.get(f"/payments/{payment.id}")).text
    assert 'name="amount" value="3.40"' in page
    assert "Of 4.40 USD, 1.00 USD are refunded or requested already." in text_of(page)
    more = await act(browser, payment, "refund", {"amount": "3.41"})
    assert more.status == 409
    assert "Nothing was done: no more than 3.40 USD of the captured amount is left to refund." in text_of(more.text)
    assert (await act(browser, payment, "refund", {"amount": "3.40"})).status == 303
    payment = await now(console, payment)
    assert "Refund…" not in await page_of(browser, payment)
    for refund in await operations_of(console, payment):
        await settle(store, refund, OperationStatus.SUCCESS)
    page = await page_of(browser, payment)
    assert [page.count(f"refunded , {part} USD") for part in ("1.00", "3.40")] == [1, 1]
    assert "a scratch" in page
    assert (await now(console, payment)).amount_refunded == 440
    none = await act(browser, await now(console, payment), "refund", {"amount": "0.01"})
    assert "no more than 0.00 USD of the captured amount is left" in text_of(none.text)
    await assert_books_agree(database_url)


async def test_a_double_click_and_a_reload_make_one_refund(console: Console, database_url: str) -> None:
    payment = await charged(console.services.payments)
    browser = await console.logged_in(*WRITER)
    form = {"csrf": await browser.csrf(), "version": str(payment.version), "amount": "1.00"}
    path = f"/payments/{payment.id}/refund"
    clicks = await asyncio.gather(*(browser.post(path, form) for _ in range(3)))
    assert [click.status for click in clicks] == [303] * 3
    assert (await browser.post(path, form)).status == 303
    assert "The refund of 1.00 USD was requested already, and once." in await page_of(browser, payment)
    assert [one.amount_minor for one in await operations_of(console, payment)] == [100]
    assert (await now(console, payment)).version == payment.version + 1
    await assert_books_agree(database_url)


async def test_two_people_with_one_page_before_them_make_one_refund(console: Console) -> None:
    payment = await charged(console.services.payments)
    one, other = await console.logged_in(*WRITER), await console.logged_in(*WRITER)
    answers = await asyncio.gather(*(act(browser, payment, "refund", {"amount": "1.00"}) for browser in (one, other)))
    assert sorted(answer.status for answer in answers) == [303, 409]
    [conflict] = [answer for answer in answers if answer.status == 409]
    assert f"the payment has changed: it was decided by version {payment.version}" in text_of(conflict.text)
    # The same person, with another amount: the page is older than the refund.
    again = await act(one, payment, "refund", {"amount": "2.00"})
    assert (again.status, len(await operations_of(console, payment))) == (409, 1)


@pytest.mark.parametrize("kind", ["capture", "refund"])
async def test_a_form_that_is_older_than_the_payment_moves_nothing(console: Console, kind: str) -> None:
    payments = console.services.payments
    payment = await (authorized(payments) if kind == "capture" else charged(payments))
    browser = await console.logged_in()
    answer = await act(browser, replace(payment, version=payment.version - 1), kind, {"amount": "1.00"})
    assert answer.status == 409
    assert f"it was decided by version {payment.version - 1}, and is {payment.status}" in text_of(answer.text)
    assert await operations_of(console, payment) == []


async def test_a_wrong_amount_or_reason_says_what_is_wrong(console: Console) -> None:
    payment = await charged(console.services.payments)
    browser = await console.logged_in()
    wrong = {text: {"amount": text} for text in ("", "0.00", "-1", "1.005", "1e2", "1 USD", "9" * 16)}
    problems = {
        "The reason must have 1 to 500 characters.": {"amount": "1", "reason": "x" * 501},
        "looks like the number of a card": {"amount": "1", "reason": "4242 4242 4242 4242"},
    }
    above = "The amount must be above zero, in the units of USD, like 1,234.55. Nothing has changed."
    for problem, fields in [*((above, one) for one in wrong.values()), *problems.items()]:
        answer = await act(browser, payment, "refund", fields)
        assert (answer.status, problem in text_of(answer.text)) == (422, True), fields
    assert (await now(console, payment)).version == payment.version


async def test_what_the_payment_does_not_allow_is_refused_in_words(console: Console, store: OperationStore) -> None:
    held, paid = await authorized(console.services.payments), await charged(console.services.payments, "paid")
    browser = await console.logged_in()
    too_much = await act(browser, held, "capture", {"amount": "4.41"})
    assert "Nothing was done: no more than 4.40 USD is held, and can be captured." in text_of(too_much.text)
    early = await act(browser, held, "refund", {"amount": "1"})
    assert "a payment that is authorized cannot be refunded: nothing was captured" in text_of(early.text)
    late = await act(browser, paid, "capture", {"amount": "1"})
    assert "a payment that is success cannot be captured: it must be authorized" in text_of(late.text)
    await store.request(asked(held.id, OperationKind.VOID))
    both = await act(browser, await now(console, held), "capture", {"amount": "1"})
    assert "another capture or void of the payment is under way" in text_of(both.text)
    assert [answer.status for answer in (too_much, early, late, both)] == [409] * 4


async def test_what_the_provider_cannot_do_is_refused_before_it_is_requested(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "providers.toml"
    file.write_text(
        '[providers.http]\nkind = "okane_http"\nbase_url = "http://127.0.0.1:1"\ncapabilities = ["refund"]\n'
    )
    async with serve_console(database_url, redis_url, providers_file=file) as console:
        payment = await charged(console.services.payments)
        browser = await console.logged_in()
        part = await act(browser, payment, "refund", {"amount": "1"})
        assert part.status == 422
        assert "The provider http cannot do this: it has no partial refund. Nothing has changed." in text_of(part.text)
        file.write_text("this is no TOML")  # then the worker decides
        assert (await act(browser, payment, "refund", {"amount": "1"})).status == 303


async def test_without_redis_a_refund_waits_for_the_sweep(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object, **__: object) -> None:
        raise StreamUnavailable("gone")

    payment = await charged(console.services.payments)
    browser = await console.logged_in()
    monkeypatch.setattr(Producer, "publish_many", away)
    assert (await act(browser, payment, "refund", {"amount": "1"})).status == 303
    assert "Redis did not take its wake-up: the sweep will send it." in await page_of(browser, payment)
    assert [one.status for one in await operations_of(console, payment)] == [OperationStatus.PENDING]


async def test_the_page_follows_a_refund_that_is_tried_again(console: Console, store: OperationStore) -> None:
    payment = await charged(console.services.payments)
    browser = await console.logged_in(*WRITER)
    await act(browser, payment, "refund", {"amount": "1"})
    part = f"/payments/{payment.id}?part=1"
    tag = (await browser.get(part)).headers["ETag"]
    assert (await browser.get(part, If_None_Match=tag)).status == 304
    [refund] = await operations_of(console, payment)
    await settle(
        store, refund, OperationStatus.FAILED_RETRYABLE, event="unavailable", reason="HTTP 503", delay=LEASE
    )  # which changes nothing in the payment's row
    changed = await browser.get(part, If_None_Match=tag)
    assert changed.status == 200
    text = text_of(changed.text)
    assert "refund unavailable , now failed_retryable operate, http, 5 ms HTTP 503" in text
    assert "next attempt" in text


async def test_a_refund_is_canceled_before_it_is_executed(console: Console, store: OperationStore) -> None:
    payment = await charged(console.services.payments)
    refund = (await store.request(asked(payment.id, amount_minor=100))).operation
    browser, other = await console.logged_in(*WRITER), await console.logged_in(*WRITER)
    stale = await decide(browser, replace(refund, version=5), "cancel")
    assert (stale.status, "the refund has changed" in text_of(stale.text)) == (409, True)
    assert (await decide(browser, refund, "cancel")).status == 303
    assert "The refund is canceled. No money is given back." in await page_of(browser, payment)
    assert (await decide(browser, refund, "cancel")).status == 303  # a reload
    assert (await decide(other, refund, "cancel")).status == 409  # another person has done it
    assert (await now(console, payment)).refund_reserved == 0


async def test_a_failed_refund_is_retried_if_there_is_room_for_it(console: Console, store: OperationStore) -> None:
    payment = await charged(console.services.payments)
    refund = await done(
        store, asked(payment.id, amount_minor=400), OperationStatus.FAILED_FINAL, event="declined", decline_code="no"
    )
    browser = await console.logged_in(*WRITER)
    assert "It was declined: the new attempt has a new key at http." in await page_of(browser, payment)
    await done(store, asked(payment.id, key="other", amount_minor=300))
    no_room = await decide(browser, refund, "retry")
    assert "no more than 1.40 USD of the captured amount is left to refund." in text_of(no_room.text)
    small = await done(store, asked(payment.id, key="small", amount_minor=100), OperationStatus.FAILED_FINAL)
    answer = await decide(browser, small, "retry")
    assert answer.status == 303
    page = await page_of(browser, payment)
    assert "The refund is pending again, and its wake-up is sent." in page
    assert (await store.get(small.id)).status is OperationStatus.PENDING
    audited = (await console.services.audit.page(limit=1))[0]
    assert (audited.action, audited.target) == ("retry operation", f"{payment.id} {small.id}")


@pytest.mark.parametrize(("decision", "ref"), [("success", "re_7"), ("failed_final", "")])
async def test_a_refund_that_needs_a_review_is_found_and_decided(
    console: Console, store: OperationStore, decision: str, ref: str
) -> None:
    payment = await charged(console.services.payments)
    review = OperationStatus.NEEDS_REVIEW
    refund = await done(store, asked(payment.id, amount_minor=100), review, reason="open for a day")
    browser, other = await console.logged_in(Scope.READ, Scope.OPERATE), await console.logged_in()
    page = await page_of(browser, payment)
    assert f"Search at http for the refund with the key {refund.provider_key} ." in page
    fields = {"as": decision, "reason": "seen there", "provider_ref": ref}
    wrong = await decide(browser, refund, "resolve", **{**fields, "reason": " "})
    assert (wrong.status, (await store.get(refund.id)).status) == (422, review)
    assert (await decide(browser, refund, "resolve", **{**fields, "as": "pending"})).status == 400
    assert (await decide(browser, refund, "resolve", **fields)).status == 303
    decided = await store.get(refund.id)
    assert (decided.status.value, decided.provider_ref) == (decision, ref or None)
    assert f"The decision is recorded: {decision}." in await page_of(browser, payment)
    repeated = await decide(other, refund, "resolve", **{**fields, "reason": "mine"})
    assert repeated.status == 409  # the reason of another person is in the history
    assert (await now(console, payment)).amount_refunded == (100 if decision == "success" else None)


async def test_what_needs_a_review_is_on_the_page_of_reviews_and_counted_on_the_overview(
    console: Console, store: OperationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    review = OperationStatus.NEEDS_REVIEW
    paid, held = await charged(console.services.payments), await authorized(console.services.payments, "held")
    refund = await done(store, asked(paid.id, amount_minor=100), review, reason="open for a day")
    capture = await done(store, asked(held.id, OperationKind.CAPTURE, "capture"), review)
    await done(store, asked(paid.id, key="spent", amount_minor=1), OperationStatus.FAILED_FINAL, event="spent")
    browser = await console.logged_in()
    page = await browser.get("/reviews")
    text = text_of(page.text)
    assert [f'href="/console/payments/{one.payment_id}#op-{one.id}"' in page.text for one in (refund, capture)] == [
        True
    ] * 2
    assert f"{paid.id} refund 1.00 USD" in text
    assert "open for a day" in text
    assert "No payment needs a review." in text
    assert "2 captures, voids and refunds need a review" in text_of((await browser.get("/")).text)
    stranger = await console.logged_in(account="globex")
    assert "Nothing needs a review." in text_of((await stranger.get("/reviews")).text)
    monkeypatch.setattr("okane.console.reviews.OPERATIONS", 1)
    cut = (await browser.get("/reviews")).text
    assert (str(capture.id) in cut, str(refund.id) in cut) == (True, False)
    assert "The others follow as these are decided." in cut


async def test_a_key_that_reads_sees_operations_and_may_not_act(console: Console, store: OperationStore) -> None:
    paid, held = await charged(console.services.payments), await authorized(console.services.payments, "held")
    refund = (await store.request(asked(paid.id, amount_minor=100))).operation
    browser = await console.logged_in(Scope.READ)
    for payment in (paid, held):
        assert "<dialog" not in (await browser.get(f"/payments/{payment.id}")).text
    assert str(refund.id) in await page_of(browser, paid)
    refused = [await act(browser, one, kind, {"amount": "1"}) for one in (paid, held) for kind in ("capture", "refund")]
    refused += [await decide(browser, refund, action) for action in ("cancel", "retry", "resolve")]
    assert {answer.status for answer in refused} == {403}
    writer = await console.logged_in(*WRITER)
    assert (await decide(writer, refund, "resolve", **{"as": "success", "reason": "x"})).status == 403
    assert (await store.get(refund.id)).version == refund.version


async def test_operations_of_others_look_like_none(console: Console, store: OperationStore) -> None:
    paid, other = await charged(console.services.payments), await charged(console.services.payments, "other")
    refund = (await store.request(asked(paid.id, amount_minor=100))).operation
    stranger, browser = await console.logged_in(account="globex"), await console.logged_in()
    for kind in ("capture", "refund"):
        assert (await act(stranger, paid, kind, {"amount": "1"})).status == 404
    fields = {"as": "success", "reason": "x"}
    for action in ("cancel", "retry", "resolve"):
        assert (await decide(stranger, refund, action, **fields)).status == 404
        for missing in (replace(refund, id=uuid4()), replace(refund, payment_id=other.id)):
            assert (await decide(browser, missing, action, **fields)).status == 404
    assert (await store.get(refund.id)).version == refund.version
