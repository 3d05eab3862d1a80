"""Long polling: the duration of a wait, its cost, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast
from uuid import UUID

import pytest
from yarl import URL

from okane.api.long_polling import LONGEST_WAIT_S, preferred_wait_s
from okane.errors import StoreUnavailable
from okane.payment import Status
from okane.store import PaymentWatch
from tests.okane.api_requests import JSON, get, post, settle
from tests.okane.served_api import Api


class Looking:
    """The watch behind an API, which records its queries and fails for a while."""

    def __init__(self, watch: PaymentWatch, *, failures: int = 0) -> None:
        self._watch = watch
        self._failures = failures
        self.asked: list[int] = []

    async def find_waited_for(self, ids: Sequence[UUID]) -> Sequence[tuple[UUID, Status]]:
        self.asked.append(len(ids))
        if len(self.asked) <= self._failures:
            raise StoreUnavailable("away")
        return await self._watch.find_waited_for(ids)


def watched(api: Api, *, failures: int = 0) -> Looking:
    looking = Looking(api.long_polling._watch, failures=failures)
    api.long_polling._watch = cast(PaymentWatch, looking)
    return looking


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def made(api: Api, key: str = "k") -> str:
    _, body = await post(api, "/v1/payments", f'{{"amount": 440, "idempotency_key": "{key}"}}')
    return str(body["payment"]["id"])


@pytest.mark.parametrize(
    ("said", "wait_s"),
    [
        ("wait=10", 10),
        ("Wait = 10", 10),
        ('wait="7"', 7),
        ("wait=7; foo=bar", 7),
        ("respond-async, wait=3", 3),
        ("wait=3, wait=4", 3),
        ("wait=0", 0),
        ("wait=31", LONGEST_WAIT_S),
        ("wait=999999999", LONGEST_WAIT_S),
        ("wait=-1", None),
        ("wait=1.5", None),
        ("wait", None),
        ("wait=٣", None),
        ("await=3", None),
        ("", None),
    ],
)
def test_a_preference_is_read_and_what_is_none_is_passed_over(said: str, wait_s: int | None) -> None:
    assert preferred_wait_s({"Prefer": said}) == wait_s


def test_a_request_without_a_preference_does_not_wait() -> None:
    assert preferred_wait_s({}) is None


@pytest.mark.parametrize(
    ("status", "more"),
    [
        (Status.SUCCESS, {}),
        (Status.FAILED_FINAL, {"decline_code": "no"}),
        (Status.NEEDS_REVIEW, {"reason": "poison"}),
    ],
)
async def test_a_reader_is_answered_when_the_payment_is_at_rest(api: Api, status: Status, more: dict[str, Any]) -> None:
    payment_id = await made(api)
    reading = asyncio.create_task(get(api, f"/v1/payments/{payment_id}", Prefer="wait=30"))
    await until(lambda: len(api.long_polling) == 1)
    await settle(api, payment_id, status, **more)
    response, body = await reading
    assert (response.status, body["payment"]["status"]) == (200, status.value)
    assert response.headers["Preference-Applied"] == "wait=30"
    assert len(api.long_polling) == 0
    response, _ = await get(api, f"/v1/payments/{payment_id}", Prefer="wait=30")  # and now at once
    assert response.headers["Preference-Applied"] == "wait=30"


async def test_a_status_that_is_not_the_last_one_ends_no_wait(api: Api) -> None:
    payment_id = await made(api)
    reading = asyncio.create_task(get(api, f"/v1/payments/{payment_id}", Prefer="wait=30"))
    looking = watched(api)
    await until(lambda: len(api.long_polling) == 1)
    await api.store.claim(UUID(payment_id))
    looks = len(looking.asked)
    await until(lambda: len(looking.asked) > looks + 2)
    assert not reading.done()
    await api.long_polling.aclose()
    _, body = await reading
    assert body["payment"]["status"] == "processing"


async def test_a_wait_ends_in_time(api: Api) -> None:
    payment_id = await made(api)
    response, body = await get(api, f"/v1/payments/{payment_id}", Prefer="wait=1")
    assert (response.status, body["payment"]["status"]) == (200, "pending")
    assert response.headers["Preference-Applied"] == "wait=1"
    assert response.headers["Retry-After"] == "1"
    assert len(api.long_polling) == 0


async def test_a_reader_with_the_current_etag_waits_for_a_change(api: Api) -> None:
    payment_id = await made(api)
    known = {"If-None-Match": '"0"', "Prefer": "wait=30"}
    reading = asyncio.create_task(get(api, f"/v1/payments/{payment_id}", **known))
    await until(lambda: len(api.long_polling) == 1)
    await settle(api, payment_id, Status.SUCCESS)
    response, _ = await reading
    assert response.status == 200
    response, _ = await get(api, f"/v1/payments/{payment_id}", **{"If-None-Match": '"0"', "Prefer": "wait=0"})
    assert response.status == 200


@pytest.mark.parametrize("path", ["/v1/payments", "/payments", "/pay"])
async def test_whoever_makes_a_payment_may_wait_for_it(api: Api, path: str) -> None:
    body = '{"amount": 440, "idempotency_key": "k"}'
    making = asyncio.create_task(post(api, path, body, Prefer="wait=30"))
    await until(lambda: len(api.long_polling) == 1)
    _, known = await post(api, "/v1/payments", body)
    await settle(api, known["payment"]["id"], Status.SUCCESS)
    response, answer = await making
    assert (response.status, response.headers["Preference-Applied"]) == (202, "wait=30")
    assert (answer.get("payment") or answer)["status"].lower() in {"success", "pending"}  # /pay calls what is new so
    response, _ = await post(api, path, body, Prefer="wait=30")
    assert (response.status, response.headers["Idempotent-Replayed"]) == (200, "true")


async def test_many_waiting_requests_share_each_poll(api: Api) -> None:
    payment_ids = [await made(api, f"k{number}") for number in range(20)]
    looking = watched(api)
    reading = [
        asyncio.create_task(get(api, f"/v1/payments/{payment_id}", Prefer="wait=30"))
        for payment_id in payment_ids
        for _ in range(4)
    ]
    await until(lambda: len(api.long_polling) == 80)
    looks = len(looking.asked)
    await until(lambda: len(looking.asked) > looks + 1)
    assert looking.asked[-1] == 20  # each payment once, all in one statement
    for payment_id in payment_ids:
        await settle(api, payment_id, Status.SUCCESS)
    for answered in asyncio.as_completed(reading):
        _, body = await answered
        assert body["payment"]["status"] == "success"
    looks = len(looking.asked)
    task = api.long_polling._poller
    assert task is not None
    await asyncio.wait([task], timeout=60)
    assert task.done()  # no request waits, and no poll runs
    assert len(looking.asked) <= looks + 1


async def test_a_client_that_goes_away_frees_its_place(api: Api) -> None:
    payment_id = await made(api)
    url = URL(api.url)
    assert url is not None
    for head in (f"GET /v1/payments/{payment_id}", "POST /v1/payments"):
        body = '{"amount": 440, "idempotency_key": "k"}' if head.startswith("POST") else ""
        _, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(
            f"{head} HTTP/1.1\r\nHost: localhost\r\nPrefer: wait=30\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        await until(lambda: len(api.long_polling) == 1)
        writer.transport.abort()
        await until(lambda: len(api.long_polling) == 0)


async def test_a_server_that_stops_releases_waiting_requests(api: Api) -> None:
    payment_id = await made(api)
    reading = asyncio.create_task(get(api, f"/v1/payments/{payment_id}", Prefer="wait=30"))
    await until(lambda: len(api.long_polling) == 1)
    await api.long_polling.aclose()
    response, body = await reading
    assert (response.status, body["payment"]["status"]) == (200, "pending")
    response, _ = await get(api, f"/v1/payments/{payment_id}", Prefer="wait=30")  # and no request begins to wait
    assert response.status == 200


async def test_a_database_that_is_away_for_a_while_ends_no_wait(api: Api) -> None:
    payment_id = await made(api)
    looking = watched(api, failures=3)
    reading = asyncio.create_task(get(api, f"/v1/payments/{payment_id}", Prefer="wait=30"))
    await until(lambda: len(looking.asked) > 3)
    await settle(api, payment_id, Status.SUCCESS)
    _, body = await reading
    assert body["payment"]["status"] == "success"


async def test_no_request_waits_for_a_payment_that_does_not_exist(api: Api) -> None:
    response, problem = await get(api, "/v1/payments/01890000-0000-7000-8000-000000000000", Prefer="wait=30")
    assert (response.status, problem["code"]) == (404, "payment_not_found")
    async with api.client.post("/v1/payments", data="{", headers=JSON | {"Prefer": "wait=30"}) as refused:
        assert refused.status == 400
