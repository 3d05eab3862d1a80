"""Requests to the served API, right and wrong ones."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import aiohttp

from okane.payment import Status
from okane.store import Claim, Settlement
from tests.okane.served_api import Api
from tests.okane.stored_payments import settlement

JSON = {"Content-Type": "application/json"}


async def post(api: Api, path: str, body: str | bytes, **headers: str) -> tuple[aiohttp.ClientResponse, Any]:
    async with api.client.post(path, data=body, headers=JSON | headers) as response:
        return response, await response.json(content_type=None)


async def get(api: Api, path: str, **headers: str) -> tuple[aiohttp.ClientResponse, Any]:
    async with api.client.get(path, headers=headers) as response:
        return response, await response.json(content_type=None)


async def rows(api: Api) -> int:
    return sum((await _counts(api)).values())


async def _counts(api: Api) -> dict[str, int]:
    found = await api.store._rare.fetch("SELECT status, count(*)::int FROM payments GROUP BY status")
    return dict(found)


async def settle(api: Api, payment_id: str, status: Status, **more: object) -> Settlement:
    claim = await api.store.claim(UUID(payment_id))
    assert isinstance(claim, Claim)
    outcome = settlement(claim.payment, status, **more)
    await api.store.settle(outcome)
    return outcome


DEEP = '{"amount": 1, "metadata": ' + '{"a":' * 8 + "1" + "}" * 8 + "}"


BAD = [
    ("", 400, "json_invalid"),
    ("{", 400, "json_invalid"),
    ("[]", 400, "body_not_an_object"),
    ('"text"', 400, "body_not_an_object"),
    (b'{"amount": 1, "x": "\xff"}', 400, "json_invalid"),
    ('{"amount": 1, "amount": 2, "idempotency_key": "k"}', 400, "json_duplicate_name"),
    ('{"amount": NaN, "idempotency_key": "k"}', 400, "json_invalid"),
    ('{"amount": Infinity, "idempotency_key": "k"}', 400, "json_invalid"),
    (r'{"amount": 1, "idempotency_key": "\ud800"}', 400, "json_invalid_text"),
    (r'{"amount": 1, "metadata": {"a": "\u0000"}, "idempotency_key": "k"}', 400, "json_invalid_text"),
    (r'{"amount": 1, "metadata": {"\u0000": "a"}, "idempotency_key": "k"}', 400, "json_invalid_text"),
    (DEEP, 400, "json_too_deep"),
    ('{"a":' * 10_000, 400, "json_too_deep"),
    ("1" * 5000, 400, "json_invalid"),
    ('{"amount": 1}', 400, "idempotency_key_missing"),
    ('{"amount": 1, "idempotency_key": ""}', 400, "idempotency_key_invalid"),
    ('{"amount": 1, "idempotency_key": "a b"}', 400, "idempotency_key_invalid"),
    ('{"amount": 1, "idempotency_key": "é"}', 400, "idempotency_key_invalid"),
    ('{"amount": 1, "idempotency_key": "%s"}' % ("k" * 256), 400, "idempotency_key_invalid"),
    ('{"idempotency_key": "k"}', 422, "validation_failed"),
    ('{"amount": 0, "idempotency_key": "k"}', 422, "validation_failed"),
    ('{"amount": -1, "idempotency_key": "k"}', 422, "validation_failed"),
    ('{"amount": 10.0, "idempotency_key": "k"}', 422, "validation_failed"),
    ('{"amount": 1e400, "idempotency_key": "k"}', 422, "validation_failed"),
    ('{"amount": 1e2, "idempotency_key": "k"}', 422, "validation_failed"),
    ('{"amount": true, "idempotency_key": "k"}', 422, "validation_failed"),
    ('{"amount": "10", "idempotency_key": "k"}', 422, "validation_failed"),
    ('{"amount": null, "idempotency_key": "k"}', 422, "validation_failed"),
    ('{"amount": 9007199254740992, "idempotency_key": "k"}', 422, "amount_unsafe_integer"),
    ('{"amount": 9223372036854775808, "idempotency_key": "k"}', 422, "amount_unsafe_integer"),
    ('{"amount": %s, "idempotency_key": "k"}' % ("9" * 4000), 422, "amount_unsafe_integer"),
    ('{"amount": 1, "currency": "usd", "idempotency_key": "k"}', 422, "validation_failed"),
    ('{"amount": 1, "currency": "XXQ", "idempotency_key": "k"}', 422, "validation_failed"),
    ('{"amount": 1, "curency": "USD", "idempotency_key": "k"}', 422, "validation_failed"),
    ('{"amount": 1, "metadata": {"a": 1}, "idempotency_key": "k"}', 422, "validation_failed"),
    ('{"amount": 1, "metadata": {"%s": "v"}, "idempotency_key": "k"}' % ("n" * 41), 422, "validation_failed"),
    ('{"amount": 1, "metadata": {"n": "%s"}, "idempotency_key": "k"}' % ("v" * 501), 422, "validation_failed"),
    ('{"amount": 1, "payment_method": "", "idempotency_key": "k"}', 422, "validation_failed"),
    ('{"amount": 1, "payment_method": "pm card", "idempotency_key": "k"}', 422, "validation_failed"),
    ('{"amount": 1, "payment_method": {"card": "pm"}, "idempotency_key": "k"}', 422, "validation_failed"),
    ('{"amount": 1, "return_url": "http://shop.example/", "idempotency_key": "k"}', 422, "validation_failed"),
    ('{"amount": 1, "return_url": "https://a@shop.example/", "idempotency_key": "k"}', 422, "validation_failed"),
    ('{"amount": 1, "return_url": "https://a.example:65536/", "idempotency_key": "k"}', 422, "validation_failed"),
    ('{"amount": 1, "provider": "Stripe", "idempotency_key": "k"}', 422, "validation_failed"),
    ('{"amount": 1, "provider": ["http"], "idempotency_key": "k"}', 422, "validation_failed"),
    (
        '{{"amount": 1, "metadata": {{{}}}, "idempotency_key": "k"}}'.format(",".join(f'"{n}": ""' for n in range(51))),
        422,
        "validation_failed",
    ),
]
