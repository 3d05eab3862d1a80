"""The webhook route over real servers: what is refused, what is taken, and whom it wakes."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest
import stripe
from structlog.testing import capture_logs

from okane.api.access import KeyAccess
from okane.api.provider_notices import MAX_NOTICE_BYTES
from okane.api_key import Mode
from okane.intake.provider_notices import AFTER_COMMIT
from okane.local.postgres import PostgresServer
from okane.local.redis_server import RedisServer
from okane.payment import Status
from okane.providers.base import Notice, NoticeParser
from okane.providers.payu.webhook import notice_parser
from okane.providers.stripe.webhook import StripeNoticeParser
from okane.store import UsableProvider
from streams import Inspector, connect, failpoints
from tests.okane.api_keys import store
from tests.okane.served_api import Api, serve_api
from tests.okane.signed_notices import event, parse, signature
from tests.okane.stored_payments import accept_one, claimed, new, settlement

__all__ = ["store"]

PATH = "/v1/providers/stripe/webhook"
PARSERS = {"stripe": parse}


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[Api]:
    async for one in serve_api(database_url, redis_url, notice_parsers=PARSERS):
        one.store.usable_providers = lambda: (UsableProvider("stripe"),)
        yield one


@pytest.mark.parametrize("secret", ["whsec_new", "whsec_old"])
async def test_stripes_own_signature_is_taken_under_both_secrets(
    database_url: str, redis_url: str, secret: str
) -> None:
    parser = StripeNoticeParser(lambda: ["whsec_new", "whsec_old"])
    async for api in serve_api(database_url, redis_url, notice_parsers={"stripe": parser}):
        payment_id = await submitted(api)
        about = {"object": "payment_intent", "id": "pi_1", "metadata": {"payment_id": str(payment_id)}}
        body = json.dumps({"id": "evt_1", "type": "payment_intent.succeeded", "data": {"object": about}})
        at = int(datetime.now(UTC).timestamp())
        header = stripe.WebhookSignature.generate_signature_header(body, secret, at)
        assert (await send(api, body.encode(), {"Stripe-Signature": header}))[0] == 200
        assert (await send(api, body.encode() + b" ", {"Stripe-Signature": header}))[0] == 400
        assert await is_due(api, payment_id)
        assert notices(api) == {"taken": 1, "invalid": 1}


async def test_payus_notice_names_an_order_whose_answer_was_lost(database_url: str, redis_url: str) -> None:
    async for api in serve_api(database_url, redis_url, notice_parsers={"payu": notice_parser(lambda: ["second"])}):
        api.store.usable_providers = lambda: (UsableProvider("payu"),)
        payment_id = (await accept_one(api.store, new())).payment.id
        claim = await claimed(api.store, payment_id)
        await api.store.settle(settlement(claim.payment, Status.UNKNOWN, provider="payu", delay=timedelta(hours=1)))
        order = {"orderId": "WZHF5FFDRJ140731GUEST000P01", "extOrderId": str(payment_id), "status": "PENDING"}
        body = json.dumps({"order": order}).encode()
        digest = hashlib.sha256(body + b"second").hexdigest()
        signed = {"OpenPayu-Signature": f"sender=checkout;signature={digest};algorithm=SHA-256;content=DOCUMENT"}
        status, _ = await send(api, body, signed, path="/v1/providers/payu/webhook")
        assert status == 200
        found = await api.store.get(payment_id, account_id="default")
        assert (found.status, found.attempt_ref) == (Status.UNKNOWN, order["orderId"])
        assert await is_due(api, payment_id)


def saying(*notices: Notice) -> NoticeParser:
    """Return a parser that finds these notices in any webhook."""

    def parser(headers: Mapping[str, str], body: bytes, *, now: datetime) -> Sequence[Notice]:
        return notices

    return parser


async def submitted(api: Api, key: str = "key", *, provider: str = "stripe") -> UUID:
    """Make a payment that waits for the decision of a provider."""
    api.store.usable_providers = lambda: (UsableProvider(provider),)
    payment_id = (await accept_one(api.store, new(key))).payment.id
    claim = await claimed(api.store, payment_id)
    await api.store.settle(
        settlement(claim.payment, Status.SUBMITTED, event="pending", provider=provider, delay=timedelta(hours=1))
    )
    return payment_id


async def send(
    api: Api, body: bytes, headers: Mapping[str, str] | None = None, *, path: str = PATH
) -> tuple[int, dict[str, Any]]:
    headers = signature(body) if headers is None else headers
    async with api.client.post(path, data=body, headers={"Content-Type": "application/json", **headers}) as response:
        return response.status, await response.json(content_type=None)


def notices(api: Api) -> dict[str, float]:
    """Return the number of notices by result, those that are not 0."""
    [family] = [one for one in api.metrics.registry.collect() if one.name == "okane_provider_notices"]
    return {
        sample.labels["result"]: sample.value
        for sample in family.samples
        if sample.name.endswith("_total") and sample.value
    }


async def stored(api: Api) -> int:
    [row] = await api.store._rare.fetch("SELECT count(*)::int FROM provider_events")
    return int(row[0])


async def wake_ups(api: Api, redis_url: str) -> int:
    async with connect(redis_url) as redis:
        return sum(lane.length for lane in (await Inspector(redis, api.stream, group="none").stats()).lanes)


async def is_due(api: Api, payment_id: UUID) -> bool:
    [row] = await api.store._rare.fetch("SELECT retry_at <= now() FROM payments WHERE id = %(id)s", {"id": payment_id})
    return bool(row[0])


async def test_a_signed_webhook_wakes_its_payment(api: Api, redis_url: str) -> None:
    payment_id = await submitted(api)
    assert await send(api, event(payment_id)) == (200, {"received": True})
    assert await is_due(api, payment_id)
    assert await wake_ups(api, redis_url) == 1
    assert notices(api) == {"taken": 1}
    payment = await api.store.get(payment_id, account_id="default")
    assert (payment.status, payment.provider_ref, payment.attempt_ref) == (Status.SUBMITTED, None, "pi_1")


async def test_it_needs_no_key_where_clients_need_one(database_url: str, redis_url: str, store: Any) -> None:
    async for api in serve_api(database_url, redis_url, KeyAccess(store, mode=Mode.TEST), notice_parsers=PARSERS):
        assert (await send(api, event(await submitted(api))))[0] == 200


def forged(body: bytes) -> dict[str, dict[str, str]]:
    signed = signature(body)["Stripe-Signature"]
    return {
        "no signature": {},
        "another secret": signature(body, secret="whsec_other"),
        "another body": signature(body + b" "),
        "too old": signature(body, age=timedelta(seconds=301)),
        "from the future": signature(body, age=timedelta(seconds=-310)),
        "a moved time": {"Stripe-Signature": signed.replace("t=", "t=1")},
        "no text": {"Stripe-Signature": "t=1,v1=ü"},
    }


@pytest.mark.parametrize("name", forged(b"{}"))
async def test_a_forged_or_late_webhook_is_refused_counted_and_not_logged(api: Api, redis_url: str, name: str) -> None:
    payment_id = await submitted(api)
    body = event(payment_id)
    with capture_logs() as logged:
        status, problem = await send(api, body, forged(body)[name])
    assert (status, problem["code"]) == (400, "notice_invalid")
    assert not [line for line in logged if line["log_level"] != "debug"]
    assert notices(api) == {"invalid": 1}
    assert await stored(api) == 0
    assert not await is_due(api, payment_id)
    assert await wake_ups(api, redis_url) == 0


async def test_a_replayed_webhook_is_taken_once(api: Api, redis_url: str) -> None:
    payment_id = await submitted(api)
    body = event(payment_id)
    headers = signature(body)
    assert [(await send(api, body, headers))[0] for _ in range(3)] == [200, 200, 200]
    assert notices(api) == {"taken": 1, "repeated": 2}
    assert (await stored(api), await wake_ups(api, redis_url)) == (1, 1)


async def test_a_webhook_that_comes_twice_at_once_is_taken_once(api: Api, redis_url: str) -> None:
    body = event(await submitted(api))
    assert {status for status, _ in await asyncio.gather(*(send(api, body) for _ in range(8)))} == {200}
    assert notices(api) == {"taken": 1, "repeated": 7}
    assert await wake_ups(api, redis_url) == 1


async def test_a_notice_of_another_providers_payment_changes_nothing(api: Api, redis_url: str) -> None:
    payment_id = await submitted(api, provider="payu")
    assert await send(api, event(payment_id)) == (200, {"received": True})
    assert not await is_due(api, payment_id)
    assert (await wake_ups(api, redis_url), notices(api)) == (0, {"unmatched": 1})


@pytest.mark.parametrize("payment_id", [None, uuid4()])
async def test_a_notice_about_no_payment_of_ours_is_taken_so_that_it_is_not_sent_again(
    api: Api, redis_url: str, payment_id: UUID | None
) -> None:
    assert await send(api, event(payment_id)) == (200, {"received": True})
    assert (await wake_ups(api, redis_url), notices(api)) == (0, {"unmatched": 1})


async def test_a_closed_payment_is_left_to_the_sweep(api: Api, redis_url: str) -> None:
    payment_id = (await accept_one(api.store, new())).payment.id
    claim = await claimed(api.store, payment_id)
    await api.store.settle(settlement(claim.payment, Status.FAILED_FINAL, event="declined", provider="stripe"))
    assert (await send(api, event(payment_id)))[0] == 200
    assert (await wake_ups(api, redis_url), notices(api)) == (0, {"taken": 1})
    payment = await api.store.get(payment_id, account_id="default")
    assert payment.status is Status.FAILED_FINAL


async def test_before_the_settle_no_wake_up_is_sent(api: Api, redis_url: str) -> None:
    payment_id = (await accept_one(api.store, new())).payment.id
    claim = await claimed(api.store, payment_id)
    assert (await send(api, event(payment_id)))[0] == 200
    assert await wake_ups(api, redis_url) == 0
    assert await api.store.settle(settlement(claim.payment, provider="stripe")) is not None


@pytest.mark.parametrize("name", ["payu", "http", "Stripe", "%00", "ü", "x" * 500])
async def test_the_route_is_closed_for_a_provider_without_webhook_secrets(api: Api, name: str) -> None:
    status, problem = await send(api, b"{}", path=f"/v1/providers/{name}/webhook")
    assert (status, problem["code"]) == (404, "provider_not_found")
    assert notices(api) == {}


async def test_without_providers_the_route_is_closed(database_url: str, redis_url: str) -> None:
    async for api in serve_api(database_url, redis_url):
        assert (await send(api, b"{}"))[1]["code"] == "provider_not_found"


async def test_a_body_of_256_kb_is_taken_and_one_byte_more_is_not(api: Api) -> None:
    payment_id = await submitted(api)
    longest = event(payment_id, pad="")
    longest = event(payment_id, pad="x" * (MAX_NOTICE_BYTES - len(longest)))
    assert len(longest) == 256 * 1024
    assert (await send(api, longest))[0] == 200
    status, problem = await send(api, longest + b" ")
    assert (status, problem["code"]) == (413, "body_too_large")


async def test_a_body_without_a_declared_length_has_the_same_limit(api: Api) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(MAX_NOTICE_BYTES // 1024 + 1):
            yield b"x" * 1024

    async with api.client.post(PATH, data=chunks()) as response:
        assert (response.status, (await response.json(content_type=None))["code"]) == (413, "body_too_large")


async def test_a_compressed_body_is_refused_since_its_signature_is_of_other_bytes(api: Api) -> None:
    async with api.client.post(PATH, data=event(None), headers=signature(event(None)), compress="gzip") as response:
        assert (response.status, (await response.json())["code"]) == (415, "unsupported_media_type")


async def test_the_raw_body_is_what_is_signed(api: Api) -> None:
    body = event(await submitted(api)).replace(b", ", b" ,\n\t ")
    assert (await send(api, body))[0] == 200


@pytest.mark.parametrize("text", ["x" * 256, "a\0b", "\ud800", "line\nbreak", "é"])
async def test_texts_that_no_column_should_hold_do_not_make_it_come_for_ever(
    database_url: str, redis_url: str, text: str
) -> None:
    parser = saying(Notice(event_id=text, kind=text, payment_id=None, provider_ref=text, provider_key=text))
    async for api in serve_api(database_url, redis_url, notice_parsers={"stripe": parser}):
        assert [(await send(api, b"{}"))[0] for _ in range(2)] == [200, 200]
        assert notices(api) == {"unmatched": 1, "repeated": 1}


async def test_an_event_that_is_about_nothing_is_taken(database_url: str, redis_url: str) -> None:
    async for api in serve_api(database_url, redis_url, notice_parsers={"stripe": saying()}):
        assert await send(api, b"{}") == (200, {"received": True})
        assert (await stored(api), notices(api)) == (0, {"unmatched": 1})


async def test_while_postgres_is_down_the_provider_is_told_to_send_again(
    private_postgres: PostgresServer, redis_url: str
) -> None:
    async for api in serve_api(private_postgres.url, redis_url, notice_parsers=PARSERS):
        payment_id = await submitted(api)
        body = event(payment_id)
        private_postgres.kill()
        status, problem = await send(api, body)
        assert (status, problem["code"], problem["retryable"]) == (503, "store_unavailable", True)
        private_postgres.start()
        async with asyncio.timeout(20):
            while (await send(api, body))[0] != 200:
                await asyncio.sleep(0.1)
        assert await is_due(api, payment_id)


async def test_while_redis_is_down_the_payment_is_due_for_the_sweep(
    database_url: str, private_redis: RedisServer
) -> None:
    async for api in serve_api(database_url, private_redis.url, notice_parsers=PARSERS):
        first, second = await submitted(api, "first"), await submitted(api, "second")
        private_redis.kill()
        assert (await send(api, event(first, "evt_1")))[0] == 200
        assert (await send(api, event(second, "evt_2")))[0] == 200  # Redis is known to be away
        for payment_id in (first, second):
            assert await is_due(api, payment_id)


async def test_a_lost_wake_up_changes_nothing_for_the_provider(api: Api, redis_url: str) -> None:
    payment_id = await submitted(api)
    failpoints.arm("notice.after_commit:raise")
    try:
        assert (await send(api, event(payment_id)))[0] == 200
        assert AFTER_COMMIT.hits == 1
    finally:
        failpoints.disarm_all()
    assert await wake_ups(api, redis_url) == 0
    assert await is_due(api, payment_id)


async def test_slow_bodies_of_strangers_are_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("okane.api.provider_notices.MOST_IN_HAND", 1)
    begun, gate = asyncio.Event(), asyncio.Event()
    body = event(await submitted(api))

    async def slowly() -> AsyncIterator[bytes]:
        yield body[:1]
        begun.set()
        await gate.wait()
        yield body[1:]

    async def first() -> int:
        async with api.client.post(PATH, data=slowly(), headers=signature(body)) as response:
            await response.read()
            return response.status

    sending = asyncio.ensure_future(first())
    await begun.wait()
    async with asyncio.timeout(4):
        while (answer := await send(api, b"{}", {}))[0] == 400:  # the first has not arrived yet
            await asyncio.sleep(0.01)
    assert (answer[0], answer[1]["code"]) == (503, "too_many_notices")
    gate.set()
    assert await sending == 200
    assert (await send(api, body))[0] == 200


async def test_a_slow_body_is_a_408(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("okane.api.request_body.BODY_TIMEOUT_S", 0.1)
    gate = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"{"
        await gate.wait()

    try:
        async with api.client.post(PATH, data=slowly(), headers=signature(b"{}")) as response:
            assert (response.status, (await response.json(content_type=None))["code"]) == (408, "body_too_slow")
    except aiohttp.ClientError:
        pytest.fail("the connection was closed before the answer")
    finally:
        gate.set()
