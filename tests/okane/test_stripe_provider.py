"""The Stripe client against a canned server: which requests it sends, and what it makes of lost and broken answers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from okane.http.connection import HttpResponse
from okane.payment import Payment
from okane.providers.base import Approved, Declined, LookUpResult, NotFound, Pending, Provider, Unavailable, Unknown
from okane.providers.exchange import HttpClient
from okane.providers.stripe.provider import MAX_PAGES, StripeProvider
from streams import failpoints
from tests.okane.provider_server import Act, RawServer, answer, close, hang, raw_server, reset, then_close
from tests.okane.stripe_answers import CARD_ERROR, CARD_PAYMENT, encoded, failed, intent, listed, unpaid

EARLIER = {"payment_id": str(CARD_PAYMENT.id), "attempt_key": "pk-0"}
REPLAYED = "Idempotent-Replayed: true"
KEY = "sk_test_canary"
SAVED_FAILURE = (500, failed(type="api_error"), REPLAYED)


@asynccontextmanager
async def stripe(
    *acts: Act, timeout_s: float = 5.0, api_key: Callable[[], str] = lambda: KEY, unauthorized: list[None] | None = None
) -> AsyncIterator[tuple[StripeProvider, RawServer]]:
    calls = [] if unauthorized is None else unauthorized
    async with (
        raw_server(*acts) as server,
        StripeProvider(
            server.base_url,
            api_key=api_key,
            timeout=timedelta(seconds=timeout_s),
            connections=4,
            on_unauthorized=lambda: calls.append(None),
        ) as provider,
    ):
        yield provider, server


def says(status: int, document: object, *headers: str) -> Act:
    return answer(status, encoded(document), *headers)


def sent(server: RawServer) -> list[str]:
    """Return the method of each request, with what it is about."""
    return [_short(request.decode().split(" ")[:2]) for request in server.requests]


def _short(line: list[str]) -> str:
    method, target = line
    about = target.removeprefix("/v1/payment_intents")
    return f"{method} {'list' if about.startswith('?') else 'search' if about.startswith('/search') else about}".strip()


async def look_up(*acts: Act, payment: Payment = CARD_PAYMENT, may_execute: bool) -> tuple[LookUpResult, list[str]]:
    async with stripe(*acts) as (provider, server):
        return await provider.look_up(payment, may_execute=may_execute), sent(server)


BY_REF = replace(CARD_PAYMENT, attempt_ref="pi_1")


# Charges


async def test_it_is_a_provider_with_stripes_traits() -> None:
    async with StripeProvider(api_key=lambda: KEY) as stripe_provider:
        provider: Provider = stripe_provider
        assert provider.name == "stripe"
        assert provider.traits.key_lifetime == timedelta(hours=23)
        assert provider.traits.consistency_lag == timedelta(seconds=90)
        assert provider.traits.unknown_deadline == timedelta(hours=12)
        assert provider.traits.timeout == timedelta(seconds=30)


async def test_a_charge_is_one_post() -> None:
    async with stripe(says(200, intent())) as (provider, server):
        assert await provider.charge(CARD_PAYMENT) == Approved("pi_1")
        assert sent(server) == ["POST"]
        assert f"Authorization: Bearer {KEY}\r\n".encode() in server.requests[0]


async def test_a_decline_reaches_the_caller() -> None:
    async with stripe(says(402, failed(**CARD_ERROR, decline_code="lost_card"))) as (provider, _):
        assert await provider.charge(CARD_PAYMENT) == Declined("lost_card", "Your card was declined.")


async def test_a_payment_without_a_payment_method_is_declined_without_a_request() -> None:
    async with stripe(hang) as (provider, server):
        result = await provider.charge(replace(CARD_PAYMENT, payment_method=None))
        assert isinstance(result, Declined)
        assert result.code == "payment_method_required"
        assert server.requests == []


async def test_an_amount_that_stripe_cannot_express_is_declined_without_a_request() -> None:
    async with stripe(hang) as (provider, server):
        result = await provider.charge(replace(CARD_PAYMENT, amount_minor=501, currency="MGA"))
        assert isinstance(result, Declined)
        assert result.code == "invalid_amount"
        assert server.requests == []


@pytest.mark.parametrize(
    ("act", "timeout_s"),
    [
        (close, 5.0),
        (reset, 5.0),
        (hang, 0.3),
        (then_close(answer(200, encoded(intent())[:50], length=1000)), 5.0),
        (answer(200, b" " * 300_000), 5.0),
        (says(500, failed(type="api_error"), "Stripe-Should-Retry: true"), 5.0),
        (says(303, b"", "Location: /v1/payment_intents/pi_1"), 5.0),
    ],
)
async def test_a_lost_answer_is_unknown_and_the_charge_is_not_repeated(act: Act, timeout_s: float) -> None:
    async with stripe(act, timeout_s=timeout_s) as (provider, server):
        result = await provider.charge(CARD_PAYMENT)
        assert isinstance(result, Unknown)
        assert not result.at_once
        assert sent(server) == ["POST"]


async def test_a_charge_is_never_repeated_on_a_stale_connection() -> None:
    async with stripe(says(200, intent()), close, says(200, intent())) as (provider, server):
        assert await provider.charge(CARD_PAYMENT) == Approved("pi_1")
        assert isinstance(await provider.charge(CARD_PAYMENT), Unknown)
        assert sent(server) == ["POST", "POST"]


async def test_a_refused_connection_is_the_providers_fault() -> None:
    with socket.socket() as bound:  # bound and not listening: no other process can take the port
        bound.bind(("127.0.0.1", 0))
        async with StripeProvider(f"http://127.0.0.1:{bound.getsockname()[1]}", api_key=lambda: KEY) as provider:
            result = await provider.charge(CARD_PAYMENT)
    assert isinstance(result, Unavailable)
    assert result.fault == "provider"


async def test_a_call_in_flight_at_the_close_is_unknown() -> None:
    async with stripe(hang) as (provider, server):
        call = asyncio.create_task(provider.charge(CARD_PAYMENT))
        while not server.requests:
            await asyncio.sleep(0.001)
        await provider.aclose()
        assert await call == Unknown("the client was closed")


async def test_the_failpoint_lies_between_the_charge_and_its_answer() -> None:
    async with stripe(says(200, intent())) as (provider, server):
        failpoints.arm("provider.before_answer:raise")
        try:
            assert isinstance(await provider.charge(CARD_PAYMENT), Unknown)
        finally:
            failpoints.disarm_all()
        assert sent(server) == ["POST"]


# The API key


async def test_a_changed_key_is_used_at_once() -> None:
    keys = ["sk_test_old", "sk_test_new"]
    async with stripe(says(200, intent()), api_key=lambda: keys.pop(0)) as (provider, server):
        await provider.charge(CARD_PAYMENT)
        await provider.charge(CARD_PAYMENT)
        assert b"Bearer sk_test_old" in server.requests[0]
        assert b"Bearer sk_test_new" in server.requests[1]


def _missing() -> str:
    raise FileNotFoundError("/run/secrets/stripe_key")


@pytest.mark.parametrize("api_key", [lambda: "", lambda: "sk_test\r\nX: y", lambda: "sk_tést", _missing])
async def test_without_a_usable_key_nothing_is_sent_and_no_retry_is_used_up(api_key: Callable[[], str]) -> None:
    async with stripe(hang, api_key=api_key) as (provider, server):
        for result in (
            await provider.charge(CARD_PAYMENT),
            await provider.look_up(BY_REF, may_execute=True),
        ):
            assert result == Unavailable("no usable API key", fault="config")
        assert server.requests == []


async def test_a_401_is_reported_and_its_reason_has_no_key() -> None:
    reported: list[None] = []
    refusal = says(401, failed(message=f"Invalid API Key provided: {KEY}"), "Request-Id: req_1")
    async with stripe(refusal, unauthorized=reported) as (provider, _):
        result = await provider.charge(CARD_PAYMENT)
        assert result == Unavailable("HTTP 401 invalid_request_error (req_1)", fault="config")
        assert len(reported) == 1
        assert await provider.look_up(BY_REF, may_execute=True) == result
        assert len(reported) == 2


@pytest.mark.parametrize("url", ["https://user:s3cret@api.stripe.com", "ftp://api.stripe.com", ""])
async def test_a_bad_base_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="base URL") as refused:
        StripeProvider(url, api_key=lambda: KEY)
    assert "s3cret" not in str(refused.value)


async def test_a_deadline_beyond_the_lifetime_of_a_key_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown_deadline"):
        StripeProvider(api_key=lambda: KEY, unknown_deadline=timedelta(hours=23))


# Look-ups: by reference


@pytest.mark.parametrize("may_execute", [True, False])
async def test_a_known_reference_is_retrieved(may_execute: bool) -> None:
    result, requests = await look_up(says(200, intent()), payment=BY_REF, may_execute=may_execute)
    assert (result, requests) == (Approved("pi_1"), ["GET /pi_1"])


async def test_the_reference_of_a_charge_goes_before_that_of_an_attempt() -> None:
    payment = replace(BY_REF, provider_ref="pi_2")
    _, requests = await look_up(says(200, intent(id="pi_2")), payment=payment, may_execute=False)
    assert requests == ["GET /pi_2"]


@pytest.mark.parametrize("status", [404, 429, 500])
async def test_a_failed_retrieval_is_not_followed_by_a_charge(status: int) -> None:
    result, requests = await look_up(says(status, failed()), payment=BY_REF, may_execute=True)
    assert isinstance(result, Unavailable | Unknown)
    assert requests == ["GET /pi_1"]


async def test_a_reference_of_an_earlier_key_does_not_hide_the_present_one() -> None:
    old = unpaid("canceled", metadata=EARLIER)
    result, requests = await look_up(
        says(200, old), says(200, listed(intent(id="pi_2"))), payment=BY_REF, may_execute=False
    )
    assert (result, requests) == (Approved("pi_2"), ["GET /pi_1", "GET list"])


async def test_a_stale_connection_is_no_reason_to_fail_a_look_up() -> None:
    async with stripe(says(200, intent()), close, says(200, intent())) as (provider, server):
        for _ in range(2):
            assert await provider.look_up(BY_REF, may_execute=False) == Approved("pi_1")
        assert sent(server) == ["GET /pi_1"] * 3


# Look-ups: by the same request


async def test_the_replay_is_the_charge_byte_for_byte() -> None:
    async with stripe(hang, says(200, intent(), REPLAYED), timeout_s=0.3) as (provider, server):
        assert isinstance(await provider.charge(CARD_PAYMENT), Unknown)
        later = replace(CARD_PAYMENT, attempts=2, version=4, last_error="no answer")
        assert await provider.look_up(later, may_execute=True) == Approved("pi_1")
        assert server.requests[0] == server.requests[1]


@pytest.mark.parametrize("headers", [[REPLAYED], []])
async def test_a_replay_returns_the_saved_answer_or_makes_the_charge_that_never_arrived(headers: list[str]) -> None:
    result, requests = await look_up(says(200, intent(), *headers), may_execute=True)
    assert (result, requests) == (Approved("pi_1"), ["POST"])
    declined = says(402, failed(**CARD_ERROR), *headers)
    result, requests = await look_up(declined, may_execute=True)
    assert (result, requests) == (Declined("card_declined", "Your card was declined.", soft=False), ["POST"])


async def test_an_unfinished_intent_in_a_saved_answer_is_retrieved() -> None:
    acts = says(200, unpaid("processing"), REPLAYED), says(200, intent())
    result, requests = await look_up(*acts, may_execute=True)
    assert (result, requests) == (Approved("pi_1"), ["POST", "GET /pi_1"])


@pytest.mark.parametrize("act", [says(500, b""), says(429, failed()), close])
async def test_an_unfinished_intent_that_cannot_be_retrieved_is_pending(act: Act) -> None:
    result, requests = await look_up(says(200, unpaid("processing"), REPLAYED), then_close(act), may_execute=True)
    assert result == Pending("pi_1")
    assert requests[:2] == ["POST", "GET /pi_1"]


async def test_a_key_in_use_is_unknown_and_nothing_else_is_tried() -> None:
    result, requests = await look_up(says(409, failed(type="idempotency_error")), may_execute=True)
    assert isinstance(result, Unknown)
    assert requests == ["POST"]


async def test_a_saved_failure_leads_to_the_list() -> None:
    result, requests = await look_up(says(*SAVED_FAILURE), says(200, listed(intent())), may_execute=True)
    assert (result, requests) == (Approved("pi_1"), ["POST", "GET list"])


async def test_a_saved_failure_without_an_intent_stays_unknown() -> None:
    """`NotFound` would lead to a charge, which gets the saved failure again until the key expires."""
    result, requests = await look_up(says(*SAVED_FAILURE), says(200, listed()), may_execute=True)
    assert (result, requests) == (Unknown("HTTP 500 api_error", is_neutral=True), ["POST", "GET list"])


@pytest.mark.parametrize(("found", "expected"), [([intent()], Approved("pi_1")), ([], NotFound())])
async def test_a_fresh_refusal_of_the_replay_says_nothing_about_the_first_request(
    found: list[object], expected: LookUpResult
) -> None:
    """Stripe validates before it looks the key up: it may refuse today what it executed yesterday."""
    result, requests = await look_up(says(400, failed()), says(200, listed(*found)), may_execute=True)
    assert (result, requests) == (expected, ["POST", "GET list"])


async def test_a_saved_refusal_is_the_outcome_of_the_first_request() -> None:
    result, requests = await look_up(says(400, failed(code="amount_too_small"), REPLAYED), may_execute=True)
    assert (result, requests) == (Declined("invalid_request:amount_too_small", "No."), ["POST"])


async def test_a_key_that_was_used_with_other_parameters_is_found_by_nothing_else() -> None:
    result, requests = await look_up(says(400, failed(type="idempotency_error")), may_execute=True)
    assert isinstance(result, Unknown)
    assert (result.at_once, requests) == (True, ["POST"])


async def test_a_failure_of_the_replay_itself_is_unknown() -> None:
    for act in (says(500, failed(type="api_error")), close):
        result, requests = await look_up(act, may_execute=True)
        assert isinstance(result, Unknown)
        assert requests == ["POST"]


@pytest.mark.parametrize("status", [401, 429])
async def test_a_replay_that_is_not_taken_is_unavailable(status: int) -> None:
    result, requests = await look_up(says(status, failed()), may_execute=True)
    assert isinstance(result, Unavailable)
    assert requests == ["POST"]


async def test_a_payment_without_a_payment_method_is_looked_up_in_the_list() -> None:
    """It was never charged, unless an earlier version did it otherwise."""
    payment = replace(CARD_PAYMENT, payment_method=None)
    result, requests = await look_up(says(200, listed()), payment=payment, may_execute=True)
    assert (result, requests) == (NotFound(), ["GET list"])


# Look-ups: in the list


async def test_without_leave_to_execute_nothing_is_posted() -> None:
    result, requests = await look_up(says(200, listed()), may_execute=False)
    assert (result, requests) == (NotFound(), ["GET list"])


@pytest.mark.parametrize(
    "document", [*(unpaid(status) for status in ("processing", "canceled")), intent(), failed(), b""]
)
@pytest.mark.parametrize("status", [200, 400, 402, 404, 409, 429, 500])
async def test_no_answer_makes_a_look_up_post_without_leave_to_execute(status: int, document: object) -> None:
    for payment in (CARD_PAYMENT, BY_REF):
        _, requests = await look_up(says(status, document, REPLAYED), payment=payment, may_execute=False)
        assert all(request.startswith("GET") for request in requests)


async def test_the_list_begins_before_the_payment_and_is_read_page_by_page() -> None:
    pages = [
        listed(*(intent(id=f"pi_{page}{row}", metadata={}) for row in range(3)), has_more=True) for page in range(2)
    ]
    async with stripe(*(says(200, page) for page in pages), says(200, listed(intent()))) as (provider, server):
        assert await provider.look_up(CARD_PAYMENT, may_execute=False) == Approved("pi_1")
        first, second, third = (request.decode().split(" ")[1] for request in server.requests)
    since = int((CARD_PAYMENT.created_at - timedelta(minutes=5)).timestamp())
    assert f"created[gte]={since}" in first
    assert "starting_after" not in first
    assert second.endswith("&starting_after=pi_02")
    assert third.endswith("&starting_after=pi_12")


async def test_the_list_of_a_scheduled_payment_begins_at_its_time() -> None:
    due = CARD_PAYMENT.created_at + timedelta(days=200)
    async with stripe(says(200, listed())) as (provider, server):
        await provider.look_up(replace(CARD_PAYMENT, execute_at=due), may_execute=False)
    assert f"created[gte]={int((due - timedelta(minutes=5)).timestamp())}".encode() in server.requests[0]


@pytest.mark.parametrize("act", [says(500, b""), says(200, b""), close, says(429, failed()), says(401, failed())])
async def test_a_list_that_breaks_off_does_not_say_that_there_is_no_charge(act: Act) -> None:
    first = says(200, listed(intent(metadata={}), has_more=True))
    result, _ = await look_up(first, act, may_execute=False)
    assert isinstance(result, Unknown | Unavailable)


async def test_a_page_of_long_intents_is_read() -> None:
    others = [intent(id=f"pi_{number}", metadata={"note": "x" * 20_000}) for number in range(100)]
    result, _ = await look_up(says(200, listed(*others, intent())), may_execute=False)
    assert result == Approved("pi_1")


@pytest.mark.parametrize(
    ("found", "expected"), [([intent()], Approved), ([], Unknown), ([intent(metadata={})], Unknown)]
)
async def test_beyond_a_number_of_pages_a_search_may_find_the_charge_but_not_deny_it(
    found: list[object], expected: type
) -> None:
    pages = [says(200, listed(intent(id=f"pi_{page}", metadata={}), has_more=True)) for page in range(MAX_PAGES)]
    search = says(200, {"object": "search_result", "has_more": False, "data": found})
    result, requests = await look_up(*pages, search, may_execute=False)
    assert isinstance(result, expected)
    assert requests == ["GET list"] * MAX_PAGES + ["GET search"]


async def test_a_list_that_takes_too_long_ends_in_a_search() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        await says(200, listed(intent(metadata={}), has_more=True))(reader, writer)

    async with stripe(slow, timeout_s=1.2) as (provider, server):
        result = await provider.look_up(CARD_PAYMENT, may_execute=False)
        assert isinstance(result, Unknown)
        assert result.is_neutral
        *lists, search = sent(server)
        assert search == "GET search"
        assert 1 <= len(lists) <= 3


async def test_the_requests_of_one_look_up_share_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    acts = says(200, unpaid("canceled", metadata=EARLIER)), says(*SAVED_FAILURE), says(200, listed())
    deadlines: list[object] = []
    call = HttpClient.call

    async def noted(self: HttpClient, request: bytes, **more: Any) -> HttpResponse | Unavailable | Unknown:
        deadlines.append(more["due_s"])
        return await call(self, request, **more)

    monkeypatch.setattr(HttpClient, "call", noted)
    _, requests = await look_up(*acts, payment=BY_REF, may_execute=True)
    assert requests == ["GET /pi_1", "POST", "GET list"]
    assert len(deadlines) == 3
    assert len(set(deadlines)) == 1
    assert None not in deadlines
