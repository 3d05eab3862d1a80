"""The rules of a request that the document cannot express: a key of its own, times in the future, a provider that exists."""

from __future__ import annotations

import itertools
import json
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import schemathesis
from schemathesis.core import NOT_SET
from schemathesis.core.parameters import ParameterLocation

from okane.card_numbers import masked

Case = schemathesis.Case[Any]

_UNDER_A_KEY = {
    *("/v1/payments", "/payments", "/pay"),
    *("/v1/refunds", "/v1/payments/{payment_id}/capture", "/v1/payment-methods", "/v1/payment-methods"),
}
_RUN = secrets.token_hex(4)
_numbers = itertools.count(1)


@schemathesis.hook
def before_call(_context: schemathesis.HookContext, case: Case, _kwargs: dict[str, Any]) -> None:
    if "Prefer" in case.headers:
        case.headers["Prefer"] = "wait=0"  # not for half a minute
    if case.body is NOT_SET:
        if case.operation.path in _UNDER_A_KEY and case.method == "POST" and _is_right(case, ParameterLocation.HEADER):
            case.headers["Idempotency-Key"] = _new_key()  # a capture needs no body, but a key
        return  # a body that is set is judged again, also to NOT_SET, which then violates the schema of an optional one
    if _is_right(case, ParameterLocation.BODY):
        case.body = _whole(case.body)
    if case.operation.path in _UNDER_A_KEY and case.method == "POST":
        _payment(case)
    if case.operation.path.endswith("/resolve") and _is_right(case, ParameterLocation.BODY):
        case.body = _resolution(case.body)
    if case.operation.path.startswith("/v1/webhook-endpoints") and _is_right(case, ParameterLocation.BODY):
        case.body = _endpoint(case.body)
    if isinstance(case.body, list) and _is_right(case, ParameterLocation.BODY):
        case.body = [
            _acceptable({**item, "idempotency_key": _new_key()}) for item in case.body if isinstance(item, dict)
        ]


def _payment(case: Case) -> None:
    """Set one idempotency key that no other payment has: where the case has one, or else in the body."""
    if not _is_right(case, ParameterLocation.BODY) or not isinstance(case.body, dict):
        return
    case.body = _acceptable(case.body)
    if not _is_right(case, ParameterLocation.HEADER):
        return
    key = _new_key()
    if "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = key
    if "Idempotency-Key" not in case.headers or case.body.get("idempotency_key") is not None:
        case.body = {**case.body, "idempotency_key": key}


def _endpoint(body: Any) -> Any:
    """Return the body with a URL that the server may call, and an overlap of secrets of at most seven days."""
    right = {"url": "https://shop.example/okane", "older_valid_for": "24h"}
    if not isinstance(body, dict):
        return body
    return {**body, **{name: value for name, value in right.items() if body.get(name) is not None}}


def _resolution(body: Any) -> Any:
    """Return the body as the document has it: a link carries the `provider_ref` of a payment into any body."""
    if isinstance(body, dict) and body.get("as") == "failed_final":
        return {name: value for name, value in body.items() if name != "provider_ref"}
    return body


def _acceptable(body: dict[str, Any]) -> dict[str, Any]:
    """Move the times of a payment into the future, in their order, and name the one provider that there is. Let a refund be
    of an amount and a currency that its payment has, and the `return_url` alone say whether the customer is present."""
    body = {name: value for name, value in body.items() if name != "customer_present"}
    if "tokens" in body:
        body = {**body, "tokens": {"http": "tok_1"}}
    if "payment" in body:
        body = {name: value for name, value in body.items() if name != "currency"} | {"amount": 1}
    if body.get("provider") is not None:
        body = {**body, "provider": "http"}
    if isinstance(tokens := body.get("tokens"), dict) and tokens:
        body = {**body, "tokens": {"http": next(iter(tokens.values()))}}
    if body.get("customer_present") is not None:  # as the other member says
        body = {**body, "customer_present": body.get("return_url") is not None}
    now = datetime.now(UTC)
    for name, hours in (("execute_at", 1), ("expires_at", 2)):
        if body.get(name) is not None:
            body = {**body, name: (now + timedelta(hours=hours)).isoformat()}
    return body


def _whole(value: Any) -> Any:
    """Return the value without numbers like 10.0, which are integers to JSON Schema, and without card numbers. It cannot
    exclude them, and the document refuses them in its descriptions."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case str():
            return masked(value)
        case dict():
            return {name: _whole(member) for name, member in value.items()}
        case list():
            return [_whole(member) for member in value]
        case _:
            return value


def _new_key() -> str:
    return f"{_RUN}-k{next(_numbers)}"  # with a letter: never in the form of a card number


def _is_right(case: Case, location: ParameterLocation) -> bool:
    return case.meta is None or not case.meta.is_negative_at(location)


@schemathesis.serializer("application/x-ndjson")
def lines(_context: schemathesis.SerializationContext, value: Any) -> bytes:
    items = value if isinstance(value, list) else [value]
    return b"\n".join(json.dumps(item).encode() for item in items)
