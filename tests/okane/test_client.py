"""The client: against the API, and over a connection that loses answers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from okane.api.access import KeyAccess
from okane.api.contract.problem_codes import CODES
from okane.api_key import Mode
from okane.client import (
    AccessDenied,
    Client,
    Conflict,
    Invalid,
    KeyReused,
    NewPayment,
    NoAnswer,
    NotFound,
    Payment,
    Receipt,
    Refused,
)
from okane.client.errors import _BY_CODE, refused
from okane.payment import Status
from okane.store import ApiKeyStore
from tests.okane.api_requests import rows, settle
from tests.okane.faulty_proxy import SOON, Way
from tests.okane.served_api import Api, serve_api

EXAMPLE = Path(__file__).parents[2] / "docs" / "client.md"
NEW = NewPayment(amount=440, idempotency_key="k-1", metadata={"order": "4711"})


def problem(code: str, **more: str) -> tuple[int, dict[str, Any], dict[str, str]]:
    status = CODES[code].status.value
    return status, {"code": code, "detail": "", "retryable": CODES[code].retryable}, more


async def test_a_payment_is_made_once(api: Api, client: Client) -> None:
    first, again = await client.pay(NEW), await client.pay(NEW)
    assert (first.created, first.enqueued, again.created) == (True, True, False)
    assert first.payment == again.payment == await client.payment(first.payment.id)
    assert (first.payment.amount, first.payment.metadata) == (440, {"order": "4711"})
    assert (first.payment.status, first.payment.execute_at) == (Status.PENDING, None)
    assert await rows(api) == 1


async def test_a_request_whose_answer_is_lost_is_repeated_under_the_same_key(api: Api, way: tuple[Way, Client]) -> None:
    lossy, client = way
    lossy.wrong = [None, None, (502, {}, {}), problem("store_unavailable")]
    receipt = await client.pay(NEW)
    assert not receipt.created  # by this request: by the first, of which nothing was heard
    assert len(lossy.asked) == 5
    assert len(set(lossy.asked)) == 1
    assert await rows(api) == 1


async def test_a_final_refusal_is_not_repeated(way: tuple[Way, Client]) -> None:
    lossy, client = way
    with pytest.raises(Invalid) as raised:
        await client.pay(NewPayment(amount=0, idempotency_key="k"))
    assert (raised.value.status, raised.value.code) == (422, "validation_failed")
    assert [one["pointer"] for one in raised.value.errors] == ["/amount"]
    assert raised.value.request_id is not None
    assert len(lossy.asked) == 1


async def test_a_retry_is_not_repeated_when_it_may_have_been_done(api: Api, way: tuple[Way, Client]) -> None:
    lossy, client = way
    payment = (await client.pay(NEW)).payment
    await settle(api, str(payment.id), Status.FAILED_FINAL)
    lossy.wrong = [problem("rate_limited"), None]
    with pytest.raises(NoAnswer):
        await client.retry(payment.id)
    assert [path for _, path, _ in lossy.asked[1:]] == [f"/v1/payments/{payment.id}/retry"] * 2
    assert (await client.payment(payment.id)).status is Status.PENDING


async def test_patience_ends(way: tuple[Way, Client]) -> None:
    lossy, client = way
    lossy.wrong = [problem("overloaded", **{"Retry-After": "61"})]  # longer than it is patient
    with pytest.raises(Refused, match="overloaded"):
        await client.pay(NEW)
    assert len(lossy.asked) == 1
    async with Client("http://127.0.0.1:1", patience_s=0.05, retries=SOON) as client:
        with pytest.raises(NoAnswer, match="GET /v1/payments/"):
            await client.payment(uuid4())


@pytest.mark.parametrize(("after_s", "least_s"), [(None, 0), (7, 7)])
def test_a_pause_is_retry_after_and_a_little_more(after_s: int | None, least_s: int) -> None:
    error = refused(429, problem("rate_limited")[1], after_s=after_s)
    pauses = [Client("http://x", retries=SOON)._transport._pause_s(error, 9, repeatable=True) for _ in range(20)]
    assert len(set(pauses)) > 1
    assert all(pause is not None and least_s <= pause < least_s + 0.005 for pause in pauses)


async def test_it_waits_for_a_payment_to_come_to_rest(api: Api, client: Client) -> None:
    payment = (await client.pay(NEW, wait_s=1)).payment
    assert payment.status is Status.PENDING
    waiting = asyncio.create_task(client.at_rest(payment.id))
    await settle(api, str(payment.id), Status.SUCCESS, provider_ref="ch_1")
    settled = await waiting
    assert (settled.status, settled.provider_ref) == (Status.SUCCESS, "ch_1")


async def test_refusals_have_a_type_for_what_can_be_done(api: Api, client: Client) -> None:
    payment = (await client.pay(NEW)).payment
    with pytest.raises(NotFound):
        await client.payment(UUID(int=1))
    with pytest.raises(KeyReused) as reused:
        await client.pay(NewPayment(amount=441, idempotency_key="k-1"))
    assert reused.value.payment_id == payment.id
    with pytest.raises(Conflict) as conflict:
        await client.retry(payment.id)
    assert conflict.value.payment_status == "pending"
    assert (await client.cancel(payment.id)).status is Status.CANCELED
    with pytest.raises(Invalid):
        [one async for one in client.payments(metadata={"": "a name must have a character"})]


async def test_an_invalid_key_raises_access_denied(database_url: str, redis_url: str) -> None:
    store = ApiKeyStore(database_url, timeout=timedelta(seconds=3))
    async for api in serve_api(database_url, redis_url, KeyAccess(store, mode=Mode.TEST)):
        async with Client(api.url, key="sk_test_nobody") as client:
            with pytest.raises(AccessDenied, match="key_invalid"):
                await client.pay(NEW)
    await store.aclose()


async def test_a_batch_has_a_result_for_each_item(client: Client) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    good = NewPayment(amount=5, idempotency_key="b", currency="EUR", execute_at=later, expires_at=later + timedelta(1))
    results = await client.pay_many([NEW, NewPayment(amount=-1, idempotency_key="a"), good])
    assert [type(one) for one in results] == [Receipt, Invalid, Receipt]
    assert isinstance(results[2], Receipt)
    assert (results[2].payment.execute_at, results[2].payment.currency) == (later, "EUR")


async def test_lists_are_gone_through_to_their_end(api: Api, client: Client) -> None:
    news = [
        NewPayment(amount=number + 1, idempotency_key=f"k-{number}", metadata={"half": str(number % 2)})
        for number in range(250)
    ]
    receipts = await client.pay_many(news)
    made = [one.payment.id for one in receipts if isinstance(one, Receipt)]
    assert {one.id async for one in client.payments()} == set(made)
    assert len(made) == 250
    found = await _all(client.payments(status=[Status.PENDING], metadata={"half": "1"}, amount_min=101))
    assert sorted(one.amount for one in found) == list(range(102, 251, 2))


async def test_the_history_of_a_payment_and_the_dead_letters(api: Api, client: Client) -> None:
    payment = (await client.pay(NEW)).payment
    await settle(api, str(payment.id), Status.FAILED_FINAL, event="spent")
    assert [event.event async for event in client.events(payment.id)] == ["accepted", "claimed", "spent"]
    [attempt] = [one async for one in client.attempts(payment.id)]
    assert (attempt.attempt, attempt.outcome, attempt.call) == (1, "spent", "charge")
    [letter] = [one async for one in client.dead_letters(status=[Status.FAILED_FINAL])]
    assert letter.payment.id == payment.id
    assert (await client.replay([payment.id], dry_run=True)).retried == [payment.id]
    assert (await client.replay()).retried == [payment.id]
    assert (await client.payment(payment.id)).status is Status.PENDING


async def test_the_example_of_the_documents_runs(
    api: Api, client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example, _receiver = re.findall(r"```python\n(.*?)```", EXAMPLE.read_text(), re.DOTALL)
    monkeypatch.setenv("OKANE_API_KEY", "any")
    code: dict[str, Any] = {}
    exec(example.replace("http://127.0.0.1:8080", api.url).replace("asyncio.run(main())", ""), code)
    running = asyncio.create_task(code["main"]())
    async with asyncio.timeout(30):
        while not (made := await _all(client.payments())):
            await asyncio.sleep(0.01)
    await settle(api, str(made[0].id), Status.FAILED_FINAL, decline_code="card_declined")
    await running
    assert "card_declined ['accepted', 'claimed', 'failed_final']" in capsys.readouterr().out


def test_every_code_that_it_tells_apart_exists() -> None:
    assert set(_BY_CODE) <= set(CODES)
    assert refused(502, {}).retryable
    assert not refused(404, {}).retryable
    assert type(refused(503, {"code": "new_one", "retryable": False})) is Refused
    assert type(refused(409, {"code": "too_many_endpoints"})) is Refused
    wrong = {code for code, one in CODES.items() if one.status in (400, 413, 414, 415, 422, 431)}
    apart = {code for code in wrong if type(refused(CODES[code].status, {"code": code})) is not Invalid}
    assert apart == {
        *("capture_exceeds_authorized", "refund_exceeds_captured", "currency_mismatch", "unsupported_by_provider"),
        "idempotency_key_reused",
    }


async def _all(payments: AsyncIterator[Payment]) -> Sequence[Payment]:
    return [one async for one in payments]
