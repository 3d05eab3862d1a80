"""The limits of amounts, times and currencies; existing payments are exempt from new limits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from yarl import URL

from okane.api import timestamps
from okane.api.payment_creation import PaymentCreation
from okane.currencies import CURRENCIES, MAX_AMOUNT_MINOR
from okane.payment import Status
from tests.okane.api_requests import get, post, rows, settle
from tests.okane.served_api import Api
from tests.okane.stored_payments import accept_one

WITHDRAWN = "BGN"  # by ISO 4217's amendment for 2026
UNSAFE = MAX_AMOUNT_MINOR + 1

MOMENTS = {
    "2027-01-01T00:00:00Z": "2027-01-01T00:00:00.000000Z",
    "2027-01-01t00:00:00z": "2027-01-01T00:00:00.000000Z",
    "2027-01-01T00:00:00.5Z": "2027-01-01T00:00:00.500000Z",
    "2027-01-01T00:00:00.123456Z": "2027-01-01T00:00:00.123456Z",
    "2027-01-01T00:00:00.123456000Z": "2027-01-01T00:00:00.123456Z",
    "2027-01-01T00:00:00.100000000Z": "2027-01-01T00:00:00.100000Z",
    "2027-01-01T00:00:00-00:00": "2027-01-01T00:00:00.000000Z",
    "2027-01-01T23:59:59+23:59": "2027-01-01T00:00:59.000000Z",
    "2026-12-31T16:00:00-08:00": "2027-01-01T00:00:00.000000Z",
}
NO_MOMENTS = [
    "2027-01-01T00:00:00123Z",
    "2027-01-01T00:00:00.1234567Z",
    "2027-01-01T00:00:00.123456001Z",
    "2027-01-01T00:00:00.1234560000Z",
    "2027-01-01T00:00:00.Z",
    "2027-01-01T00:00:00,5Z",
    "2027-01-01T00:00:60Z",
    "2016-12-31T23:59:60Z",
    "2027-01-01T24:00:00Z",
    "2027-01-01T00:60:00Z",
    "2027-01-01T00:00Z",
    "2027-01-01T00:00:00",
    "2027-01-01T00:00:00 Z",
    "2027-01-01 00:00:00Z",
    "2027-01-01T00:00:00+24:00",
    "2027-01-01T00:00:00+01:60",
    "2027-01-01T00:00:00+0100",
    "2027-01-01T00:00:00+01",
    "2027-01-01T00:00:00+01:00:00",
    "2027-01-01T00:00:00\u221201:00",
    "2027-01-01",
    "20270101T000000Z",
    "2027-W01-1T00:00:00Z",
    "2027-001T00:00:00Z",
    "2027-02-29T00:00:00Z",
    "2027-13-01T00:00:00Z",
    "2027-00-01T00:00:00Z",
    "2027-01-00T00:00:00Z",
    "0000-01-01T00:00:00Z",
    "+02027-01-01T00:00:00Z",
    "2027-01-01T00:00:00Z\n",
    " 2027-01-01T00:00:00Z",
    "\u0662027-01-01T00:00:00Z",
    "",
]


def body(**members: object) -> str:
    return json.dumps({"amount": 440, "idempotency_key": "k"} | members)


def of_earlier(creation: PaymentCreation, **members: object) -> Any:
    """Return the payment of this body, as a version with other rules parses it."""
    return creation.parse(body(**members).encode(), (), account_id="default")


async def refused(api: Api, text: str) -> tuple[int, Any]:
    response, problem = await post(api, "/v1/payments", text)
    return response.status, problem


@pytest.mark.parametrize(("text", "meant"), MOMENTS.items())
def test_a_time_is_kept_to_its_last_digit(text: str, meant: str) -> None:
    assert timestamps.to_text(timestamps.parse(text)) == meant


@pytest.mark.parametrize("text", NO_MOMENTS)
async def test_a_time_outside_the_grammar_is_refused_in_bodies_and_queries_alike(api: Api, text: str) -> None:
    for name in ("execute_at", "expires_at"):
        status, problem = await refused(api, body(**{name: text}))
        assert (status, problem["code"], problem["errors"][0]["pointer"]) == (422, "validation_failed", f"/{name}")
    replay = json.dumps({"filter": {"dead_after": text}, "dry_run": True})
    response, problem = await post(api, "/v1/dead-letters/replay", replay)
    assert (response.status, problem["errors"][0]["pointer"]) == (422, "/filter/dead_after")
    for path, name in (("/v1/payments", "created_after"), ("/v1/dead-letters", "dead_before")):
        async with api.client.get(URL(path).with_query({name: text})) as response:
            problem = await response.json(content_type=None)
            assert (response.status, problem["errors"][0]["parameter"]) == (400, name)
    assert await rows(api) == 0


@pytest.mark.parametrize("path", ["/v1/payments", "/payments", "/pay"])
async def test_an_amount_that_javascript_would_change_is_refused_with_a_code_of_its_own(api: Api, path: str) -> None:
    response, _ = await post(api, path, body(amount=MAX_AMOUNT_MINOR))
    assert response.status == 202
    for amount in (UNSAFE, 2**63 - 1, 2**63, 10**100):
        response, problem = await post(api, path, body(amount=amount, idempotency_key="other"))
        assert (response.status, problem["code"]) == (422, "amount_unsafe_integer")
        assert [(one["pointer"], one["code"]) for one in problem["errors"]] == [("/amount", "amount_unsafe_integer")]
        items = json.dumps([json.loads(body(amount=amount, idempotency_key="other"))])
        _, answer = await post(api, "/v1/payments/batch", items)
        assert answer["results"][0]["problem"]["code"] == "amount_unsafe_integer"
    assert await rows(api) == 1


async def test_a_number_that_is_whole_to_json_schema_alone_is_refused_in_words(api: Api) -> None:
    for amount in ("96.0", "9.6e1", "96e0"):
        text = f'{{"amount": {amount}, "idempotency_key": "k"}}'
        status, problem = await refused(api, text)
        assert (status, problem["code"], problem["errors"][0]["code"]) == (422, "validation_failed", "int_type")
        assert "96, not 96.0" in problem["errors"][0]["detail"]
    assert await rows(api) == 0


async def test_a_payment_of_more_than_two_to_the_53_that_exists_is_read_repeated_and_found(api: Api) -> None:
    earlier = (await accept_one(api.store, of_earlier(api.creation, amount=2**63 - 1))).payment
    response, again = await post(api, "/v1/payments", body(amount=2**63 - 1))
    assert (response.status, again["payment"]["id"], again["payment"]["amount"]) == (200, str(earlier.id), 2**63 - 1)
    response, read = await get(api, f"/v1/payments/{earlier.id}")
    assert (response.status, read["payment"]["amount"]) == (200, 2**63 - 1)
    _, found = await get(api, f"/v1/payments?amount_min={MAX_AMOUNT_MINOR}")
    assert [one["id"] for one in found["payments"]] == [str(earlier.id)]
    _, problem = await post(api, "/v1/payments", body(amount=2**63 - 2))
    assert (problem["code"], problem["payment_id"]) == ("idempotency_key_reused", str(earlier.id))


async def test_a_payment_in_a_withdrawn_currency_is_found_and_a_new_one_refused(api: Api) -> None:
    assert WITHDRAWN not in CURRENCIES
    earlier = (await accept_one(api.store, of_earlier(api.creation, currency=WITHDRAWN))).payment
    await settle(api, str(earlier.id), Status.FAILED_FINAL, event="spent")
    for path, name in (("/v1/payments", "payments"), ("/v1/dead-letters", "dead_letters")):
        response, found = await get(api, f"{path}?currency={WITHDRAWN}")
        assert (response.status, len(found[name])) == (200, 1)
    dry = json.dumps({"filter": {"currency": WITHDRAWN}, "dry_run": True})
    response, replayed = await post(api, "/v1/dead-letters/replay", dry)
    assert (response.status, replayed["retried"]) == (200, [str(earlier.id)])
    status, problem = await refused(api, body(currency=WITHDRAWN, idempotency_key="new"))
    assert (status, problem["code"]) == (422, "validation_failed")
    assert [(one["pointer"], one["code"]) for one in problem["errors"]] == [("/currency", "currency_unknown")]
    assert await rows(api) == 1


AGED: list[tuple[str, Callable[[], dict[str, Any]]]] = [
    ("a withdrawn currency", lambda: {"currency": WITHDRAWN}),
    ("an unsafe amount", lambda: {"amount": UNSAFE}),
    ("an amount over the limit", lambda: {"amount": 101, "currency": "EUR"}),
    ("a time that has passed", lambda: {"execute_at": _ago(hours=2), "expires_at": _ago(hours=1)}),
    ("a time too far away", lambda: {"expires_at": _ago(hours=-24 * 800)}),
]


def _ago(*, hours: int) -> str:
    return (datetime.now(UTC) - timedelta(hours=hours)).isoformat()


@pytest.mark.parametrize("api", [{"amount_limits": "EUR=100"}], indirect=True)
@pytest.mark.parametrize("way", ["/v1/payments", "/payments", "/pay", "aiohttp", "batch", "form"])
@pytest.mark.parametrize(("_rule", "members"), AGED, ids=[rule for rule, _ in AGED])
async def test_the_repeat_of_an_accepted_request_is_held_to_no_rule_for_new_ones(
    api: Api, way: str, _rule: str, members: Callable[[], dict[str, Any]]
) -> None:
    asked = body(**members())
    new = api.creation.parse(asked.encode(), (), account_id="default")
    # The database refuses these times by now. They are part of the fingerprint, by which the repeat is known.
    earlier = (await accept_one(api.store, replace(new, execute_at=None, expires_at=None))).payment
    fresh = asked.replace('"k"', '"fresh"')
    statuses = []
    for text in (asked, fresh):
        headers = {"Prefer": "wait=0"} if way == "aiohttp" else {}
        if way == "form":
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        if way == "batch":
            _, answer = await post(api, "/v1/payments/batch", f"[{text}]")
            statuses.append(answer["results"][0]["status"])
        else:
            path = way if way.startswith("/") else "/v1/payments"
            response, answer = await post(api, path, text, **headers)
            statuses.append(response.status)
    assert statuses == [200, 422]
    assert await rows(api) == 1
    found = await api.store.get(UUID(str(earlier.id)), account_id="default")
    assert found.status in {Status.PENDING, Status.CANCELED}


async def test_an_optional_member_that_is_null_is_as_if_it_were_absent(api: Api) -> None:
    _, first = await post(api, "/v1/payments", body())
    nulls = dict.fromkeys(
        ["currency", "metadata", "execute_at", "expires_at", "payment_method", "return_url", "provider"]
    )
    for name in nulls:
        response, again = await post(api, "/v1/payments", body(**{name: None}))
        assert (response.status, again["payment"]["id"]) == (200, first["payment"]["id"]), name
    response, _ = await post(api, "/v1/payments", body(idempotency_key=None), **{"Idempotency-Key": "k"})
    assert response.status == 200
    _, answer = await post(api, "/v1/payments/batch", f"[{body(**nulls)}]")
    assert answer["results"][0]["status"] == 200
    response, replayed = await post(api, "/v1/dead-letters/replay", '{"filter": null, "limit": null, "dry_run": null}')
    assert (response.status, replayed["dry_run"]) == (200, False)
    assert await rows(api) == 1
