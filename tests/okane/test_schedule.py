"""Payments for later, payments that expire, and amounts that are too large: what is new only, and what is never late."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from okane.config import Settings
from okane.payment import Status
from okane.store import Claim, ClaimRefusal, Overview, PaymentStore, SweepStore
from streams import Done
from tests.okane.api_requests import get, post, settle
from tests.okane.charging import Desk, wake_up
from tests.okane.lane_states import EMPTY
from tests.okane.served_api import Api
from tests.okane.stored_payments import GRACE, LEASE, accept_one, claimed, execute, new, settlement

HOUR = timedelta(hours=1)


def later(by: timedelta = HOUR) -> datetime:
    return datetime.now(UTC) + by


def body(**members: object) -> str:
    texts = {name: one.isoformat() if isinstance(one, datetime) else one for name, one in members.items()}
    return json.dumps({"amount": 440, "idempotency_key": "k"} | texts)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PaymentStore]:
    store = PaymentStore(database_url, actor="test", lease=LEASE, grace=GRACE)
    yield store
    await store.aclose()


async def age(url: str, payment_id: UUID, column: str) -> None:
    """Let the moment in this column be over."""
    at = "created_at - interval '1 second'"
    also = ", sweep_at = now()" if column == "execute_at" else ""
    await execute(url, f"UPDATE payments SET {column} = {at}{also} WHERE id = %s", [payment_id])


async def test_a_scheduled_payment_waits_for_its_time(api: Api) -> None:
    at = later(HOUR + timedelta(seconds=30)).replace(microsecond=123456)
    response, answer = await post(api, "/v1/payments", body(execute_at=at))
    assert (response.status, answer["created"], answer["enqueued"]) == (202, True, False)
    payment = answer["payment"]
    assert payment["execute_at"] == at.isoformat().replace("+00:00", "Z")
    assert "expires_at" not in payment
    response, read = await get(api, f"/v1/payments/{payment['id']}")
    assert (read["payment"], response.headers["Retry-After"]) == (payment, "3600")
    refused = await api.store.claim(UUID(payment["id"]))
    assert isinstance(refused, ClaimRefusal)
    assert abs(refused.wait - HOUR) < timedelta(minutes=1)
    assert api.metrics.not_enqueued._value.get() == 0
    response, again = await post(api, "/v1/payments", body(execute_at=at.astimezone(UTC)))
    assert (response.status, again["payment"]["id"]) == (200, payment["id"])
    for other in (
        {},
        {"execute_at": at + timedelta(microseconds=1)},
        {"execute_at": at, "expires_at": later(2 * HOUR)},
    ):
        response, problem = await post(api, "/v1/payments", body(**other))
        assert (response.status, problem["code"]) == (422, "idempotency_key_reused")


async def test_the_sweep_wakes_it_when_it_is_time_and_repairs_nothing(store: PaymentStore, database_url: str) -> None:
    sweeps = SweepStore(database_url, grace=GRACE)
    payment_id = (await accept_one(store, replace(new(), execute_at=later()))).payment.id
    assert await sweeps.take_due(EMPTY, limit=10) == []
    await age(database_url, payment_id, "execute_at")
    [first] = await sweeps.take_due(EMPTY, limit=10)
    assert (first.payment_id, first.scheduled) == (payment_id, True)
    await execute(database_url, "UPDATE payments SET sweep_at = now() WHERE id = %s", [payment_id])
    [second] = await sweeps.take_due(EMPTY, limit=10)  # the first wake-up was lost: this one is a repair
    assert not second.scheduled
    claim = await claimed(store, payment_id)
    await store.settle(settlement(claim.payment))
    await sweeps.aclose()


async def test_what_is_scheduled_is_not_overdue_before_its_time(store: PaymentStore, database_url: str) -> None:
    overview = Overview(database_url)
    payment_id = (await accept_one(store, replace(new(), execute_at=later()))).payment.id
    await execute(
        database_url,
        "UPDATE payments SET created_at = now() - interval '1 day', updated_at = now() - interval '1 day'",
        [],
    )
    assert await overview.oldest_due() == timedelta(0)
    await execute(
        database_url, "UPDATE payments SET execute_at = now() - interval '1 minute' WHERE id = %s", [payment_id]
    )
    assert timedelta(minutes=1) <= await overview.oldest_due() < HOUR
    await overview.aclose()


async def test_a_scheduled_payment_can_be_canceled(api: Api) -> None:
    _, answer = await post(api, "/v1/payments", body(execute_at=later()))
    response, canceled = await post(api, f"/v1/payments/{answer['payment']['id']}/cancel", "")
    assert (response.status, canceled["payment"]["status"]) == (200, "canceled")


BAD: list[tuple[dict[str, Any], str]] = [
    ({"execute_at": later(-HOUR)}, "/execute_at"),
    ({"execute_at": later(timedelta(days=367))}, "/execute_at"),
    ({"execute_at": "2026-01-01"}, "/execute_at"),
    ({"execute_at": "2099-01-01T00:00:00"}, "/execute_at"),
    ({"execute_at": 4070908800}, "/execute_at"),
    ({"execute_at": "9999-12-31T23:59:59-23:59"}, "/execute_at"),
    ({"expires_at": later(-HOUR)}, "/expires_at"),
    ({"expires_at": later(timedelta(days=367))}, "/expires_at"),
    ({"expires_at": later(), "execute_at": later(2 * HOUR)}, "/expires_at"),
    ({"expires_at": True}, "/expires_at"),
]


@pytest.mark.parametrize(("members", "pointer"), BAD)
async def test_a_time_that_cannot_be_meant_is_refused(api: Api, members: dict[str, Any], pointer: str) -> None:
    response, problem = await post(api, "/v1/payments", body(**members))
    assert (response.status, problem["code"]) == (422, "validation_failed")
    assert [one["pointer"] for one in problem["errors"]] == [pointer]
    _, listed = await get(api, "/v1/payments")
    assert listed["payments"] == []


async def test_a_repeat_is_answered_when_its_times_are_over(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = body(execute_at=later(), expires_at=later(2 * HOUR))
    _, first = await post(api, "/v1/payments", asked)
    # Whatever it is by now, it is nothing for a new payment.
    monkeypatch.setattr("okane.store.accept_statements.MAX_SCHEDULE_AHEAD", timedelta(0))
    response, again = await post(api, "/v1/payments", asked)
    assert (response.status, again["payment"]) == (200, first["payment"])
    response, problem = await post(api, "/v1/payments", body(execute_at=later()))
    assert (response.status, problem["code"]) == (422, "idempotency_key_reused")
    response, problem = await post(api, "/v1/payments", body(execute_at=later(), idempotency_key="other"))
    assert (response.status, problem["code"]) == (422, "validation_failed")


async def test_in_a_batch_only_what_is_wrong_is_refused(api: Api) -> None:
    items = [
        json.loads(body(idempotency_key="a", execute_at=later())),
        json.loads(body(idempotency_key="b", execute_at=later(-HOUR))),
        json.loads(body(idempotency_key="c")),
    ]
    _, answer = await post(api, "/v1/payments/batch", json.dumps(items))
    assert [one["status"] for one in answer["results"]] == [202, 422, 202]
    assert [one.get("enqueued") for one in answer["results"]] == [False, None, True]


async def test_an_expired_payment_is_canceled_by_whoever_wakes_it(desk: Desk) -> None:
    expiring = replace(new(), expires_at=later())
    payment_id = (await accept_one(desk.store, expiring)).payment.id
    await age(desk.url, payment_id, "expires_at")
    refused = await desk.store.claim(payment_id)
    assert isinstance(refused, ClaimRefusal)
    assert (refused.status, refused.expired) == (Status.PENDING, True)
    assert isinstance(await desk.charge(wake_up(payment_id)), Done)
    assert desk.provider.asked == []
    payment = await desk.store.get(payment_id, account_id="default")
    assert (payment.status, payment.last_error) == (Status.CANCELED, "expired")
    events = await desk.store.events(payment_id)
    assert [(event.event, event.reason) for event in events] == [("accepted", None), ("canceled", "expired")]
    assert isinstance(await desk.charge(wake_up(payment_id)), Done)


async def test_an_expired_payment_between_two_tries_is_not_tried_again(desk: Desk) -> None:
    payment_id = (await accept_one(desk.store, replace(new(), expires_at=later()))).payment.id
    claim = await claimed(desk.store, payment_id)
    await desk.store.settle(settlement(claim.payment, Status.FAILED_RETRYABLE, delay=HOUR))
    await age(desk.url, payment_id, "expires_at")
    assert isinstance(await desk.charge(wake_up(payment_id)), Done)
    assert (await desk.status(payment_id), desk.provider.asked) == (Status.CANCELED, [])


@pytest.mark.parametrize("late", [False, True])
async def test_an_open_outcome_is_looked_up_however_late_and_never_charged_again(desk: Desk, late: bool) -> None:
    payment_id = (await accept_one(desk.store, replace(new(), expires_at=later()))).payment.id
    claim = await claimed(desk.store, payment_id)
    unknown = settlement(claim.payment, Status.UNKNOWN, delay=timedelta(0))
    await desk.store.settle(unknown)
    await age(desk.url, payment_id, "expires_at")
    assert not await desk.store.expire(payment_id)
    if late:
        await desk.store.record_late(replace(unknown, status=Status.SUCCESS, event="success", provider_ref="ref"))
    await desk.charge(wake_up(payment_id))
    assert [asked.split()[0] for asked in desk.provider.asked] == ["look"]  # and was not found
    assert await desk.status(payment_id) is Status.FAILED_RETRYABLE
    await desk.charge(wake_up(payment_id))
    status = await desk.status(payment_id)
    # A charge that was heard of late is looked up for ever, or until a human decides: it may not be withdrawn.
    assert status is (Status.FAILED_RETRYABLE if late else Status.CANCELED)
    assert all(asked.startswith("look") for asked in desk.provider.asked)


async def test_a_claim_that_was_taken_in_time_counts(desk: Desk) -> None:
    payment_id = (await accept_one(desk.store, replace(new(), expires_at=later()))).payment.id
    assert isinstance(await desk.charge(wake_up(payment_id)), Done)
    assert await desk.status(payment_id) is Status.SUCCESS
    await age(desk.url, payment_id, "expires_at")
    assert not await desk.store.expire(payment_id)


async def test_whoever_reads_an_expired_payment_sees_it_canceled(api: Api, database_url: str) -> None:
    _, answer = await post(api, "/v1/payments", body(expires_at=later()))
    payment_id = answer["payment"]["id"]
    _, read = await get(api, f"/v1/payments/{payment_id}")
    assert read["payment"]["status"] == "pending"
    await age(database_url, UUID(payment_id), "expires_at")
    _, read = await get(api, f"/v1/payments/{payment_id}")
    assert (read["payment"]["status"], read["payment"]["last_error"]) == ("canceled", "expired")


async def test_a_payment_that_expires_stays_on_the_happy_path(store: PaymentStore, database_url: str) -> None:
    payment_id = (await accept_one(store, replace(new(), expires_at=later()))).payment.id
    sweeps = SweepStore(database_url, grace=GRACE)
    assert await sweeps.take_due(EMPTY, limit=10) == []
    assert isinstance(await store.claim(payment_id), Claim)
    await sweeps.aclose()


@pytest.mark.parametrize("api", [{"amount_limits": "EUR=1000,JPY=50"}], indirect=True)
async def test_amounts_are_limited_by_currency_for_what_is_new(api: Api) -> None:
    for currency, amount, status in (("EUR", 1000, 202), ("EUR", 1001, 422), ("JPY", 51, 422), ("USD", 10**15, 202)):
        asked = body(amount=amount, currency=currency, idempotency_key=f"{currency}-{amount}")
        response, answer = await post(api, "/v1/payments", asked)
        assert response.status == status
        if status == 422:
            assert answer["code"] == "amount_too_large"
            assert answer["errors"][0]["pointer"] == "/amount"
    earlier = (await accept_one(api.store, _as_asked(api, amount=5000))).payment
    response, again = await post(api, "/v1/payments", body(amount=5000, currency="EUR"))
    assert (response.status, again["payment"]["id"]) == (200, str(earlier.id))  # accepted when it was allowed
    response, problem = await post(api, "/v1/payments", body(amount=6000, currency="EUR"))
    assert problem["code"] == "idempotency_key_reused"


def _as_asked(api: Api, *, amount: int) -> Any:
    return api.creation.parse(body(amount=amount, currency="EUR").encode(), (), account_id="default")


@pytest.mark.parametrize("currency", ["XXX", "XAU", "XTS", "ZZZ"])
async def test_what_is_no_money_is_no_currency(api: Api, currency: str) -> None:
    response, problem = await post(api, "/v1/payments", body(currency=currency))
    assert (response.status, problem["code"]) == (422, "validation_failed")


@pytest.mark.parametrize(
    ("said", "limits"), [("EUR=1", {"EUR": 1}), (" EUR = 10 ,JPY=5", {"EUR": 10, "JPY": 5}), ("", None)]
)
def test_the_limits_are_read(monkeypatch: pytest.MonkeyPatch, said: str, limits: dict[str, int] | None) -> None:
    monkeypatch.setenv("OKANE_AMOUNT_LIMITS", said)
    assert Settings(_env_file=None).amount_limits == limits


@pytest.mark.parametrize(
    "said", ["EUR", "EUR=0", "EUR=-1", "EUR=1.5", "eur=1", "EUR=1,EUR=2", "ZZZ=1", "EUR=1,", "XAU=1"]
)
def test_limits_that_cannot_be_meant_are_refused(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("OKANE_AMOUNT_LIMITS", said)
    with pytest.raises(ValueError, match=r"(?i)amount_limits"):
        Settings(_env_file=None)


async def test_the_timeline_of_an_expired_payment_tells_why(api: Api, database_url: str) -> None:
    _, answer = await post(api, "/v1/payments", body(expires_at=later()))
    payment_id = answer["payment"]["id"]
    await settle(api, payment_id, Status.FAILED_RETRYABLE, delay=HOUR)
    await age(database_url, UUID(payment_id), "expires_at")
    await get(api, f"/v1/payments/{payment_id}")
    _, timeline = await get(api, f"/v1/payments/{payment_id}/events")
    assert (timeline["events"][-1]["event"], timeline["events"][-1]["reason"]) == ("canceled", "expired")
