"""The API over real HTTP: the behaviour that clients of both older systems rely on, and the problems of bad input."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import structlog
from multidict import CIMultiDict
from yarl import URL

from okane.api import request_body, strict_json
from okane.api.problems import Problem
from okane.payment import Status
from okane.store import Claim, ClaimRefusal
from tests.okane.api_requests import BAD, JSON, get, post, rows, settle
from tests.okane.served_api import Api
from tests.okane.stored_payments import settlement


@pytest.mark.parametrize("path", ["/payments", "/v1/payments"])
async def test_okanes_client_works_unchanged(api: Api, path: str) -> None:
    response, body = await post(api, path, '{"amount": 440, "idempotency_key": "demo-key-1"}')
    assert (response.status, body["created"], body["enqueued"]) == (202, True, True)
    payment = body["payment"]
    assert {"id", "amount", "status", "idempotency_key", "attempts", "created_at", "updated_at"} <= set(payment)
    assert (payment["amount"], payment["status"], payment["idempotency_key"]) == (440, "pending", "demo-key-1")
    assert payment["attempts"] == 0
    assert "provider_ref" not in payment
    assert response.headers["Location"] == f"/v1/payments/{payment['id']}"
    assert response.headers["X-Request-Id"]

    response, again = await post(api, path, '{"amount": 440, "idempotency_key": "demo-key-1"}')
    assert (response.status, again["created"], again["payment"]["id"]) == (200, False, payment["id"])
    assert response.headers["Idempotent-Replayed"] == "true"

    response, read = await get(api, f"{path}/{payment['id']}")
    assert (response.status, read["payment"]["id"]) == (200, payment["id"])


async def test_the_older_queues_client_works_unchanged(api: Api) -> None:
    response, body = await post(api, "/pay", '{"amount": 500, "idempotency_key": "abc123"}')
    assert response.status == 202
    assert set(body) == {"payment_id", "amount", "status"}
    assert body["payment_id"].startswith("pay_")
    assert (body["amount"], body["status"]) == (500, "PENDING")

    response, read = await get(api, f"/payments/{body['payment_id']}")
    assert (response.status, read["status"]) == (200, "QUEUED")
    assert set(read) == {"payment_id", "amount", "status"}

    plain = str(UUID(body["payment_id"].removeprefix("pay_")))
    _, same = await get(api, f"/v1/payments/{plain}")  # one payment, two spellings
    assert same["payment"]["idempotency_key"] == "abc123"
    await settle(api, plain, Status.SUCCESS)
    _, read = await get(api, f"/payments/{body['payment_id']}")
    assert read["status"] == "SUCCESS"


@pytest.mark.parametrize("path", ["/health", "/v1/health", "/healthz", "/readyz"])
async def test_health_answers(api: Api, path: str) -> None:
    response, body = await get(api, path)
    assert response.status == 200
    assert body["status"] in {"ok", "ready"}


@pytest.mark.parametrize(("amount", "lane"), [(999, "low"), (1000, "default"), (9999, "default"), (10_000, "critical")])
async def test_the_amount_decides_the_lane(api: Api, amount: int, lane: str) -> None:
    _, body = await post(api, "/payments", f'{{"amount": {amount}, "idempotency_key": "k"}}')
    assert body["payment"]["lane"] == lane


async def test_a_hundred_parallel_equal_posts_make_one_payment(api: Api) -> None:
    answers = await asyncio.gather(
        *(post(api, "/payments", '{"amount": 440, "idempotency_key": "same"}') for _ in range(100))
    )
    assert sorted(response.status for response, _ in answers) == [200] * 99 + [202]
    assert len({body["payment"]["id"] for _, body in answers}) == 1
    assert await rows(api) == 1


async def test_a_key_reused_for_another_amount_is_refused(api: Api) -> None:
    _, first = await post(api, "/payments", '{"amount": 440, "idempotency_key": "k"}')
    response, problem = await post(api, "/payments", '{"amount": 441, "idempotency_key": "k"}')
    assert (response.status, problem["code"]) == (422, "idempotency_key_reused")
    assert problem["payment_id"] == first["payment"]["id"]
    assert await rows(api) == 1


async def test_defaults_and_order_do_not_change_the_meaning(api: Api) -> None:
    await post(api, "/payments", '{"amount": 440, "metadata": {"a": "1", "b": "2"}, "idempotency_key": "k"}')
    response, _ = await post(
        api,
        "/payments",
        '{"currency": "USD", "metadata": {"b": "2", "a": "1"}, "amount": 440}',
        **{"Idempotency-Key": '"k"'},
    )
    assert response.status == 200


@pytest.mark.parametrize("header", ["k-1", '"k-1"'])
async def test_the_key_may_be_a_header(api: Api, header: str) -> None:
    response, body = await post(api, "/payments", '{"amount": 440}', **{"Idempotency-Key": header})
    assert (response.status, body["payment"]["idempotency_key"]) == (202, "k-1")


@pytest.mark.parametrize("path", ["/payments", "/v1/payments", "/pay"])
@pytest.mark.parametrize(("body", "status", "code"), BAD, ids=[str(body)[:40] for body, _, _ in BAD])
async def test_bad_input_is_a_problem_and_changes_nothing(
    api: Api, path: str, body: str | bytes, status: int, code: str
) -> None:
    response, problem = await post(api, path, body)
    assert (response.status, problem["code"]) == (status, code)
    assert response.content_type == "application/problem+json"
    assert {"type", "title", "status", "detail", "instance", "request_id", "retryable"} <= set(problem)
    assert problem["request_id"] == response.headers["X-Request-Id"]
    assert await rows(api) == 0


async def test_every_wrong_member_is_named(api: Api) -> None:
    _, problem = await post(api, "/payments", '{"amount": 0, "x/y": 1, "metadata": {"a": 1}, "idempotency_key": "k"}')
    assert {one["pointer"] for one in problem["errors"]} == {"/amount", "/x~1y", "/metadata/a"}


async def test_errors_do_not_quote_the_validator(api: Api) -> None:
    _, problem = await post(api, "/payments", '{"amount": 1, "currency": "usd", "idempotency_key": "k"}')
    assert problem["errors"][0]["detail"] == "must be an ISO 4217 code in capitals, like USD"


async def test_two_different_keys_are_refused(api: Api) -> None:
    body = '{"amount": 1, "idempotency_key": "a"}'
    response, problem = await post(api, "/payments", body, **{"Idempotency-Key": "b"})
    assert (response.status, problem["code"]) == (400, "idempotency_key_mismatch")


async def test_a_client_that_goes_away_in_mid_request_logs_no_error(api: Api) -> None:
    url = URL(api.url)
    assert url is not None
    with structlog.testing.capture_logs() as logged:
        _, writer = await asyncio.open_connection(url.host, url.port)
        head = b"POST /payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n"
        writer.write(head + b'{"amount"')
        await writer.drain()
        await get(api, "/health")  # the request has been begun
        writer.transport.abort()
        await get(api, "/health")
    assert [line for line in logged if line["log_level"] == "error"] == []
    assert await rows(api) == 0


async def test_two_different_key_headers_are_refused(api: Api) -> None:
    headers = CIMultiDict([("Idempotency-Key", "a"), ("Idempotency-Key", "b"), ("Content-Type", "application/json")])
    async with api.client.post("/payments", data='{"amount": 1}', headers=headers) as response:
        assert (await response.json(content_type=None))["code"] == "idempotency_key_mismatch"


class Name(str):
    """Counts how often it is compared with another."""

    compared = 0
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        Name.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_many_names_cost_no_more_than_their_length() -> None:
    pairs: list[tuple[str, Any]] = [(Name(f"n{number}"), 1) for number in (*range(7_000), 6_999)]
    with pytest.raises(Problem):
        strict_json._members(pairs)
    assert 0 < Name.compared < 10 * len(pairs)  # it was the square while each name was counted


async def test_a_body_over_64_kb_is_refused(api: Api) -> None:
    response, problem = await post(api, "/payments", b" " * (64 * 1024 + 1))
    assert (response.status, problem["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/octet-stream"},
        {"Content-Type": "nonsense"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "deflate"},
    ],
)
async def test_another_media_type_is_refused(api: Api, headers: dict[str, str]) -> None:
    response, problem = await post(api, "/payments", '{"amount": 1, "idempotency_key": "k"}', **headers)
    assert (response.status, problem["code"]) == (415, "unsupported_media_type")
    assert await rows(api) == 0


async def test_the_content_type_that_curl_sets_counts_as_json(api: Api) -> None:
    """`curl -d '{"amount": …}'` without a header, as the older system's README has it."""
    curls = {"Content-Type": "application/x-www-form-urlencoded"}
    for path, key in (("/payments", "a"), ("/pay", "b")):
        response, _ = await post(api, path, f'{{"amount": 440, "idempotency_key": "{key}"}}', **curls)
        assert response.status == 202
    response, problem = await post(api, "/payments", "amount=440&idempotency_key=k", **curls)
    assert (response.status, problem["code"]) == (415, "unsupported_media_type")


async def test_a_body_that_is_declared_too_large_is_refused_unread(api: Api) -> None:
    url = URL(api.url)
    assert url is not None
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(
        b"POST /payments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n"
    )
    async with asyncio.timeout(2):
        assert b" 413 " in await reader.readline()
    writer.close()


async def test_json_may_say_that_it_is_utf_8(api: Api) -> None:
    body = '{"amount": 1, "metadata": {"name": "Zoë"}, "idempotency_key": "k"}'
    response, answer = await post(api, "/payments", body, **{"Content-Type": "application/json; charset=UTF-8"})
    assert (response.status, answer["payment"]["metadata"]) == (202, {"name": "Zoë"})


async def test_a_body_that_drips_is_cut_off(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_body, "BODY_TIMEOUT_S", 0.2)
    stop = asyncio.Event()

    async def drip() -> AsyncIterator[bytes]:
        yield b'{"amount"'
        await stop.wait()

    async with api.client.post("/payments", data=drip(), headers=JSON) as response:
        assert (response.status, (await response.json(content_type=None))["code"]) == (408, "body_too_slow")
    stop.set()


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/v1/payments", "GET,HEAD,POST"),
        ("GET", "/payments", "POST"),
        ("PUT", "/pay", "POST"),
        ("POST", "/v1/payments/x", "GET,HEAD"),
        ("GET", "/v1/payments/batch", "POST"),
        ("PATCH", "/v1/health", "GET,HEAD"),
    ],
)
async def test_the_problem_of_a_wrong_method_lists_the_right_ones(api: Api, method: str, path: str, allow: str) -> None:
    async with api.client.request(method, path) as response:
        assert (response.status, response.headers["Allow"]) == (405, allow)
        assert (await response.json(content_type=None))["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/", "route_not_found"),
        ("/v1/payments/", "route_not_found"),
        ("/v1/payments/nonsense", "payment_not_found"),
        ("/payments/pay_zzz", "payment_not_found"),
        ("/v1/payments/01890000-0000-7000-8000-000000000000", "payment_not_found"),
    ],
)
async def test_an_unknown_path_is_not_found(api: Api, path: str, code: str) -> None:
    response, problem = await get(api, path)
    assert (response.status, problem["code"]) == (404, code)


async def test_a_request_id_is_kept_if_it_is_one(api: Api) -> None:
    response, _ = await get(api, "/health", **{"X-Request-Id": "mine-1"})
    assert response.headers["X-Request-Id"] == "mine-1"
    response, _ = await get(api, "/health", **{"X-Request-Id": "not one"})
    assert response.headers["X-Request-Id"] not in {"not one", ""}


async def test_an_unchanged_payment_is_not_sent_again(api: Api) -> None:
    _, body = await post(api, "/payments", '{"amount": 440, "idempotency_key": "k"}')
    path = f"/v1/payments/{body['payment']['id']}"
    response, _ = await get(api, path)
    assert response.headers["Retry-After"] == "1"
    known = response.headers["ETag"]
    response, _ = await get(api, path, **{"If-None-Match": known})
    assert response.status == 304
    await settle(api, body["payment"]["id"], Status.SUCCESS)
    response, _ = await get(api, path, **{"If-None-Match": known})
    assert response.status == 200
    assert "Retry-After" not in response.headers


async def test_a_failed_payment_can_be_retried_and_nothing_else_can(api: Api) -> None:
    _, body = await post(api, "/payments", '{"amount": 440, "idempotency_key": "k"}')
    path = f"/v1/payments/{body['payment']['id']}/retry"
    response, problem = await post(api, path, "")
    assert (response.status, problem["code"], problem["payment_status"]) == (409, "status_conflict", "pending")
    await settle(api, body["payment"]["id"], Status.FAILED_FINAL, decline_code="card_declined")
    response, retried = await post(api, path, "")
    assert (response.status, retried["payment"]["status"], retried["enqueued"]) == (202, "pending", True)
    response, problem = await post(api, "/v1/payments/01890000-0000-7000-8000-000000000000/retry", "")
    assert (response.status, problem["code"]) == (404, "payment_not_found")


async def test_a_payment_that_is_not_charged_yet_can_be_canceled(api: Api) -> None:
    _, body = await post(api, "/payments", '{"amount": 440, "idempotency_key": "k"}')
    payment_id = body["payment"]["id"]
    for _ in range(2):  # the repeat finds it done
        response, canceled = await post(api, f"/v1/payments/{payment_id}/cancel", "")
        assert (response.status, canceled["payment"]["status"]) == (200, "canceled")
    assert isinstance(await api.store.claim(UUID(payment_id)), ClaimRefusal)
    _, timeline = await get(api, f"/v1/payments/{payment_id}/events")
    assert [event["event"] for event in timeline["events"]] == ["accepted", "canceled"]
    response, problem = await post(api, f"/v1/payments/{payment_id}/retry", "")
    assert (response.status, problem["payment_status"]) == (409, "canceled")
    response, again = await post(api, "/payments", '{"amount": 440, "idempotency_key": "k"}')
    assert (response.status, again["payment"]["status"]) == (200, "canceled")  # its key belongs to it for ever
    _, read = await get(api, f"/v1/payments/{payment_id}")
    assert read["payment"]["status"] == "canceled"


@pytest.mark.parametrize("status", [Status.SUCCESS, Status.FAILED_FINAL, Status.UNKNOWN, Status.NEEDS_REVIEW])
async def test_a_payment_that_may_have_moved_money_or_is_closed_cannot_be_canceled(api: Api, status: Status) -> None:
    _, body = await post(api, "/payments", '{"amount": 440, "idempotency_key": "k"}')
    payment_id = body["payment"]["id"]
    claim = await api.store.claim(UUID(payment_id))
    assert isinstance(claim, Claim)
    response, problem = await post(api, f"/v1/payments/{payment_id}/cancel", "")
    assert (response.status, problem["payment_status"]) == (409, "processing")
    delay = timedelta(seconds=5) if status is Status.UNKNOWN else None
    await api.store.settle(settlement(claim.payment, status, delay=delay))
    response, problem = await post(api, f"/v1/payments/{payment_id}/cancel", "")
    assert (response.status, problem["code"], problem["payment_status"]) == (409, "status_conflict", status.value)


async def test_a_payment_between_two_attempts_can_be_canceled_unless_its_charge_is_known(api: Api) -> None:
    for key, late, status in (("quiet", False, 200), ("heard-of", True, 409)):
        _, body = await post(api, "/payments", f'{{"amount": 440, "idempotency_key": "{key}"}}')
        payment_id = body["payment"]["id"]
        tried = await settle(api, payment_id, Status.FAILED_RETRYABLE, delay=timedelta(0))
        if late:
            await api.store.record_late(replace(tried, status=Status.SUCCESS, event="success", provider_ref="ref"))
        response, _ = await post(api, f"/v1/payments/{payment_id}/cancel", "")
        assert response.status == status


async def test_of_a_cancel_and_a_claim_one_wins(api: Api) -> None:
    for number in range(20):
        _, body = await post(api, "/payments", f'{{"amount": 440, "idempotency_key": "k{number}"}}')
        payment_id = body["payment"]["id"]
        (response, _), claim = await asyncio.gather(
            post(api, f"/v1/payments/{payment_id}/cancel", ""), api.store.claim(UUID(payment_id))
        )
        assert (response.status == 200) != isinstance(claim, Claim)


async def test_a_payment_that_does_not_exist_cannot_be_canceled(api: Api) -> None:
    for payment_id in ("01890000-0000-7000-8000-000000000000", "nonsense"):
        response, problem = await post(api, f"/v1/payments/{payment_id}/cancel", "")
        assert (response.status, problem["code"]) == (404, "payment_not_found")


@pytest.mark.parametrize("spelling", ["{%s}", "urn:uuid:%s", "%%20%s", "+%s", "%s%%00", "pay_pay_%s", "%%D9%%A0%s"])
async def test_a_payment_has_two_spellings_of_its_id_and_no_more(api: Api, spelling: str) -> None:
    async with api.client.post("/v1/payments", json={"amount": 440, "idempotency_key": "k"}) as response:
        payment_id = (await response.json())["payment"]["id"]
    async with api.client.get(URL("/v1/payments/" + spelling % payment_id, encoded=True)) as response:
        assert response.status == 404
