"""The PayU adapter against a raw TCP server: tokens, requests, lost and slow answers, and look-ups."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from urllib.parse import parse_qs

import pytest

from okane.payment import NextAction
from okane.providers.base import Approved, Declined, Pending, Unavailable, Unknown
from okane.providers.payu.provider import PayuProvider
from tests.okane.payu_orders import (
    ORDER,
    PAGE_URL,
    PAYU_PAYMENT,
    SECRET,
    act,
    failure,
    made,
    order,
    payu,
    token_act,
    with_order,
)
from tests.okane.provider_server import Act, RawServer, answer, close, hang, raw_server, reset, then_close

PENDING = Pending(ORDER, NextAction(PAGE_URL))
UNIQUE = failure("ERROR_ORDER_NOT_UNIQUE")


def parts(request: bytes) -> tuple[str, Mapping[str, str], str]:
    head, _, body = request.decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return first, {name.lower(): text for name, text in headers.items()}, body


def requested(server: RawServer) -> list[str]:
    """The first lines of the requests but for those of tokens."""
    lines = [parts(request)[0] for request in server.requests]
    return [line for line in lines if "oauth" not in line]


# Requests


async def test_a_charge_is_one_post_of_an_order_under_an_access_token() -> None:
    async with raw_server(token_act(), act(302, made())) as server, payu(server.base_url + "/payu/") as provider:
        assert await provider.charge(PAYU_PAYMENT) == PENDING
    token, order_ = (parts(request) for request in server.requests)
    assert token[0] == "POST /payu/pl/standard/user/oauth/authorize HTTP/1.1"
    assert "authorization" not in token[1]
    assert parse_qs(token[2]) == {
        "grant_type": ["client_credentials"],
        "client_id": ["300746"],
        "client_secret": [SECRET],
    }
    assert order_[0] == "POST /payu/api/v2_1/orders HTTP/1.1"
    assert order_[1]["authorization"] == "Bearer token-1"
    assert order_[1]["content-type"] == "application/json"
    assert json.loads(order_[2])["extOrderId"] == PAYU_PAYMENT.provider_key


async def test_the_token_is_fetched_once_for_many_calls() -> None:
    async with raw_server(token_act(), act(302, made())) as server, payu(server.base_url) as provider:
        for _ in range(5):
            assert await provider.charge(PAYU_PAYMENT) == PENDING
    assert len(server.requests) == 6


async def test_no_redirect_is_followed() -> None:
    acts = (token_act(), act(302, made(), "Location: /elsewhere"))
    async with raw_server(*acts) as server, payu(server.base_url) as provider:
        assert await provider.charge(PAYU_PAYMENT) == PENDING
    assert requested(server) == ["POST /api/v2_1/orders HTTP/1.1"]


async def test_what_payu_cannot_take_is_declined_without_a_call() -> None:
    async with raw_server(token_act()) as server, payu(server.base_url) as provider:
        assert isinstance(await provider.charge(replace(PAYU_PAYMENT, currency="JPY")), Declined)
        assert isinstance(await provider.charge(replace(PAYU_PAYMENT, payment_method="pm_card_visa")), Declined)
    assert server.requests == []


# Tokens


async def test_a_refused_token_is_replaced_and_the_order_made_under_the_new_one() -> None:
    acts = (token_act("old"), act(401, failure("UNAUTHORIZED")), token_act("new"), act(302, made()))
    async with raw_server(*acts) as server, payu(server.base_url) as provider:
        assert await provider.charge(PAYU_PAYMENT) == PENDING
    assert parts(server.requests[-1])[1]["authorization"] == "Bearer new"


async def test_a_second_401_is_our_configuration() -> None:
    acts = (token_act("old"), act(401, failure("UNAUTHORIZED")), token_act("new"), act(401, failure("UNAUTHORIZED")))
    async with raw_server(*acts) as server, payu(server.base_url) as provider:
        assert await provider.charge(PAYU_PAYMENT) == Unavailable("HTTP 401 UNAUTHORIZED", fault="config")
    assert len(server.requests) == 4


async def test_a_wrong_secret_is_our_configuration_and_no_order_is_sent() -> None:
    refused = act(401, {"error": "invalid_client", "error_description": SECRET})
    async with raw_server(refused) as server, payu(server.base_url) as provider:
        result = await provider.charge(PAYU_PAYMENT)
    assert result == Unavailable("no access token: HTTP 401", fault="config")
    assert requested(server) == []


async def test_a_changed_secret_is_used_for_the_next_token() -> None:
    secrets = iter(["first", "second"])
    acts = (token_act(), act(401, failure("UNAUTHORIZED")), token_act("new"), act(302, made()))
    async with (
        raw_server(*acts) as server,
        PayuProvider(
            base_url=server.base_url,
            pos_id="1",
            client_id="1",
            client_secret=lambda: next(secrets),
            notify_url="https://okane.example/",
        ) as provider,
    ):
        assert await provider.charge(PAYU_PAYMENT) == PENDING
    assert [parse_qs(parts(server.requests[at])[2])["client_secret"] for at in (0, 2)] == [["first"], ["second"]]


async def test_a_secret_that_cannot_be_read_is_our_configuration() -> None:
    def unreadable() -> str:
        raise OSError(f"/run/secrets/{SECRET}")

    async with PayuProvider(
        base_url="http://127.0.0.1:1", pos_id="1", client_id="1", client_secret=unreadable, notify_url="https://h/"
    ) as provider:
        result = await provider.charge(PAYU_PAYMENT)
    reason = "no access token: the client secret cannot be read: OSError"
    assert result == Unavailable(reason, fault="config")


@pytest.mark.parametrize("token", [answer(500), answer(200, b"<html>"), then_close(close), then_close(reset)])
async def test_without_a_token_nothing_is_sent(token: Act) -> None:
    async with raw_server(token) as server, payu(server.base_url) as provider:
        result = await provider.charge(PAYU_PAYMENT)
    assert isinstance(result, Unavailable)
    assert result.fault == "provider"
    assert result.reason.startswith("no access token")
    assert requested(server) == []


# Nothing happened


async def test_a_refused_connection_is_unavailable() -> None:
    with socket.socket() as bound:  # bound and not listening: no other process can take the port
        bound.bind(("127.0.0.1", 0))
        async with payu(f"http://127.0.0.1:{bound.getsockname()[1]}") as provider:
            result = await provider.charge(PAYU_PAYMENT)
            looked_up = await provider.look_up(with_order(), may_execute=False)
    assert isinstance(result, Unavailable)
    assert isinstance(looked_up, Unavailable)


async def test_a_429_is_a_limit_and_says_how_long() -> None:
    async with raw_server(token_act(), answer(429, b"", "Retry-After: 7")) as server, payu(server.base_url) as provider:
        assert await provider.charge(PAYU_PAYMENT) == Unavailable("HTTP 429", timedelta(seconds=7), "limit")


# Something may have happened


@pytest.mark.parametrize("end", [close, reset])
async def test_a_lost_answer_is_unknown_and_the_order_is_not_sent_again(end: Act) -> None:
    async with raw_server(token_act(), end, act(302, made())) as server, payu(server.base_url) as provider:
        assert isinstance(await provider.charge(PAYU_PAYMENT), Unknown)
    assert requested(server) == ["POST /api/v2_1/orders HTTP/1.1"]


async def test_a_slow_answer_is_unknown_at_the_deadline() -> None:
    async with raw_server(token_act(), hang) as server, payu(server.base_url, timeout_s=0.3) as provider:
        assert await provider.charge(PAYU_PAYMENT) == Unknown("no answer within 0.3 s")


async def test_one_deadline_covers_the_token_and_the_order() -> None:
    async def slow_token(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.5)
        await token_act()(reader, writer)

    loop = asyncio.get_running_loop()
    async with raw_server(slow_token, hang) as server, payu(server.base_url, timeout_s=1.0) as provider:
        began_s = loop.time()
        assert isinstance(await provider.charge(PAYU_PAYMENT), Unknown)
        assert loop.time() - began_s < 1.4


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_a_5xx_is_unknown(status: int) -> None:
    broken = act(status, failure("ERROR_INTERNAL"))
    async with raw_server(token_act(), broken) as server, payu(server.base_url) as provider:
        assert await provider.charge(PAYU_PAYMENT) == Unknown(f"HTTP {status} ERROR_INTERNAL")


# Look-ups


@pytest.mark.parametrize("may_execute", [True, False])
async def test_a_look_up_with_the_orders_id_gets_it(may_execute: bool) -> None:
    async with raw_server(token_act(), act(200, order("COMPLETED"))) as server, payu(server.base_url) as provider:
        assert await provider.look_up(with_order(), may_execute=may_execute) == Approved(ORDER)
    assert requested(server) == [f"GET /api/v2_1/orders/{ORDER} HTTP/1.1"]


async def test_the_reference_of_the_money_is_looked_up_before_that_of_the_attempt() -> None:
    payment = replace(PAYU_PAYMENT, attempt_ref="other", provider_ref=ORDER)
    async with raw_server(token_act(), act(200, order("COMPLETED"))) as server, payu(server.base_url) as provider:
        assert await provider.look_up(payment, may_execute=False) == Approved(ORDER)


async def test_an_id_is_escaped_in_the_path() -> None:
    payment = replace(PAYU_PAYMENT, attempt_ref="a/b?c")
    async with (
        raw_server(token_act(), act(404, failure("DATA_NOT_FOUND"))) as server,
        payu(server.base_url) as provider,
    ):
        assert await provider.look_up(payment, may_execute=False) == Unknown("HTTP 404 DATA_NOT_FOUND", is_neutral=True)
    assert requested(server) == ["GET /api/v2_1/orders/a%2Fb%3Fc HTTP/1.1"]


async def test_a_look_up_without_the_orders_id_sends_nothing_unless_it_may_execute() -> None:
    async with raw_server(token_act()) as server, payu(server.base_url) as provider:
        result = await provider.look_up(PAYU_PAYMENT, may_execute=False)
    assert result == Unknown("the order's id is not known yet", is_neutral=True)
    assert server.requests == []


async def test_a_repeat_makes_the_order_that_never_arrived() -> None:
    async with raw_server(token_act(), close, act(302, made())) as server, payu(server.base_url) as provider:
        assert isinstance(await provider.charge(PAYU_PAYMENT), Unknown)
        assert await provider.look_up(PAYU_PAYMENT, may_execute=True) == PENDING
    first, second = (request for request in server.requests if b"oauth" not in request)
    assert parts(first)[2] == parts(second)[2]


async def test_a_repeat_of_an_order_that_exists_waits_for_its_notice() -> None:
    async with raw_server(token_act(), act(400, UNIQUE)) as server, payu(server.base_url) as provider:
        result = await provider.look_up(PAYU_PAYMENT, may_execute=True)
    assert result == Unknown("PayU has an order with this extOrderId: its id comes with the notice", is_neutral=True)


async def test_an_order_that_the_refusal_of_a_repeat_names_is_looked_up() -> None:
    acts = (token_act(), act(400, UNIQUE | {"orderId": ORDER}), act(200, order("COMPLETED")))
    async with raw_server(*acts) as server, payu(server.base_url) as provider:
        assert await provider.look_up(PAYU_PAYMENT, may_execute=True) == Approved(ORDER)
    assert requested(server)[1] == f"GET /api/v2_1/orders/{ORDER} HTTP/1.1"


async def test_a_named_order_that_payu_does_not_find_proves_nothing() -> None:
    acts = (token_act(), act(400, UNIQUE | {"orderId": ORDER}), act(404, failure("DATA_NOT_FOUND")))
    async with raw_server(*acts) as server, payu(server.base_url) as provider:
        assert isinstance(await provider.look_up(PAYU_PAYMENT, may_execute=True), Unknown)


async def test_a_repeat_that_is_refused_for_its_card_is_no_decline() -> None:
    expired = act(400, failure("ERROR_INTERNAL", codeLiteral="CARD_CARD_EXPIRED"))
    async with raw_server(token_act(), expired) as server, payu(server.base_url) as provider:
        assert isinstance(await provider.charge(PAYU_PAYMENT), Declined)
        assert isinstance(await provider.look_up(PAYU_PAYMENT, may_execute=True), Unknown)


async def test_a_look_up_is_repeated_on_a_fresh_connection() -> None:
    acts = (token_act(), close, act(200, order("COMPLETED")))
    async with raw_server(*acts) as server, payu(server.base_url) as provider:
        assert await provider.look_up(with_order(), may_execute=False) == Approved(ORDER)


async def test_a_repeat_of_what_payu_cannot_take_is_no_decline() -> None:
    async with raw_server(token_act()) as server, payu(server.base_url) as provider:
        result = await provider.look_up(replace(PAYU_PAYMENT, payment_method="pm_card_visa"), may_execute=True)
    assert result == Unknown("cannot be repeated: payment_method_invalid", is_neutral=True)
    assert server.requests == []


# Settings


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"base_url": "payu.example"}, "base URL"),
        ({"base_url": f"https://user:{SECRET}@payu.example"}, "no user and password"),
        ({"pos_id": "shop"}, "pos_id"),
        ({"notify_url": "/webhook"}, "notify_url"),
        ({"validity": timedelta(hours=24)}, "unknown_deadline"),
        ({"connect_timeout": timedelta(seconds=30)}, "connect_timeout"),
    ],
)
async def test_a_bad_setting_is_refused_without_its_secret(setting: dict[str, object], message: str) -> None:
    settings: dict[str, object] = {"pos_id": "1", "client_id": "1", "notify_url": "https://okane.example/"}
    with pytest.raises(ValueError, match=message) as refused:
        PayuProvider(client_secret=lambda: SECRET, **(settings | setting))  # type: ignore[arg-type] # by their names
    assert SECRET not in str(refused.value)


async def test_its_traits_say_that_a_repeat_is_safe_for_ever() -> None:
    async with payu("http://127.0.0.1:1") as provider:
        assert provider.name == "payu"
        assert provider.traits.key_lifetime is None
        assert provider.traits.timeout == timedelta(seconds=5)
        assert provider.traits.unknown_deadline == timedelta(hours=24)
