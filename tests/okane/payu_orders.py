"""PayU's answers and a client of them, for the tests of its adapter."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

from okane.http.connection import HttpResponse
from okane.payment import Payment
from okane.providers.payu.provider import PayuProvider
from tests.okane.provider_server import Act, answer
from tests.payments import PAYMENT

ORDER = "WZHF5FFDRJ140731GUEST000P01"
PAGE_URL = "https://merch-prod.example/pay/?orderId=WZHF5FFDRJ140731GUEST000P01&token=eyJhbGciOiJIUzI1NiJ9.e30.x"
SECRET = "oauth-secret-c4nary"
PAYU_PAYMENT = replace(PAYMENT, currency="PLN", provider_key=str(PAYMENT.id))


def response(status: int, document: object) -> HttpResponse:
    return HttpResponse(status, document if isinstance(document, bytes) else json.dumps(document).encode(), None)


def made(**more: object) -> dict[str, object]:
    """The answer to an order that was made."""
    document: dict[str, object] = {
        "status": {"statusCode": "SUCCESS"},
        "redirectUri": PAGE_URL,
        "orderId": ORDER,
        "extOrderId": PAYU_PAYMENT.provider_key,
    }
    return document | more


def order(status: str, **more: object) -> dict[str, object]:
    """The answer to the look-up of an order."""
    members: dict[str, object] = {
        "orderId": ORDER,
        "extOrderId": PAYU_PAYMENT.provider_key,
        "totalAmount": str(PAYU_PAYMENT.amount_minor),
        "currencyCode": PAYU_PAYMENT.currency,
        "status": status,
    }
    return {"orders": [members | more], "status": {"statusCode": "SUCCESS"}, "properties": []}


def failure(status_code: str, **more: object) -> dict[str, object]:
    return {"status": {"statusCode": status_code} | more}


def act(status: int, document: object, *headers: str) -> Act:
    return answer(status, json.dumps(document).encode(), *headers)


def token_act(token: str = "token-1", *, expires_in: object = 43199) -> Act:
    return act(200, {"access_token": token, "token_type": "bearer", "expires_in": expires_in})


def payu(base_url: str, *, timeout_s: float = 5.0, secret: str = SECRET) -> PayuProvider:
    return PayuProvider(
        base_url=base_url,
        pos_id="300746",
        client_id="300746",
        client_secret=lambda: secret,
        notify_url="https://okane.example/v1/providers/payu/webhook",
        timeout=timedelta(seconds=timeout_s),
        connections=8,
    )


def with_order(payment: Payment = PAYU_PAYMENT) -> Payment:
    """The payment once PayU's id of its order is known."""
    return replace(payment, attempt_ref=ORDER)
