"""The bodies of requests to PayU, and the payments and settings that it cannot take."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from urllib.parse import parse_qs

import pytest

from okane.payment import Payment
from okane.providers.base import Declined
from okane.providers.payu.requests import Shop, order_body, refused_before_call, token_body
from tests.okane.payu_orders import PAYU_PAYMENT

NOTIFY_URL = "https://okane.example/v1/providers/payu/webhook"
SHOP = Shop(pos_id="300746", notify_url=NOTIFY_URL, customer_ip="203.0.113.7", validity=timedelta(hours=12))


def body(payment: Payment) -> dict[str, object]:
    document: dict[str, object] = json.loads(order_body(payment, SHOP))
    return document


def test_an_order_has_all_that_payu_requires() -> None:
    description = f"Payment {PAYU_PAYMENT.id}"
    assert body(PAYU_PAYMENT) == {
        "extOrderId": str(PAYU_PAYMENT.id),
        "merchantPosId": "300746",
        "notifyUrl": NOTIFY_URL,
        "customerIp": "203.0.113.7",
        "description": description,
        "currencyCode": "PLN",
        "totalAmount": "440",
        "validityTime": "43200",
        "products": [{"name": description, "unitPrice": "440", "quantity": "1"}],
    }


def test_without_an_address_for_notices_none_is_sent() -> None:
    document = json.loads(order_body(PAYU_PAYMENT, replace(SHOP, notify_url=None)))
    assert "notifyUrl" not in document


def test_the_same_payment_gives_the_same_bytes() -> None:
    assert order_body(PAYU_PAYMENT, SHOP) == order_body(replace(PAYU_PAYMENT, attempts=7, version=9), SHOP)


def test_the_provider_key_is_the_ext_order_id() -> None:
    key = f"{PAYU_PAYMENT.id}:7"
    assert body(replace(PAYU_PAYMENT, provider_key=key))["extOrderId"] == key


def test_a_return_url_is_where_the_customer_continues() -> None:
    url = "https://shop.example/za\u017c\u00f3\u0142\u0107?a=b"
    payment = replace(PAYU_PAYMENT, return_url=url)
    assert body(payment)["continueUrl"] == url
    assert order_body(payment, SHOP).isascii()


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("198.51.100.2", "198.51.100.2"),
        ("2001:DB8::1", "2001:db8::1"),
        ("0.0.0.0", "203.0.113.7"),
        ("::", "203.0.113.7"),
        ("fe80::1%eth0", "203.0.113.7"),
        ("shop.example", "203.0.113.7"),
        ("", "203.0.113.7"),
    ],
)
def test_the_customers_address_comes_from_the_metadata(given: str, sent: str) -> None:
    assert body(replace(PAYU_PAYMENT, metadata={"customer_ip": given}))["customerIp"] == sent


@pytest.mark.parametrize(
    ("method", "return_url", "members"),
    [
        ("m", None, {"payMethods": {"payMethod": {"type": "PBL", "value": "m"}}}),
        ("blik", None, {"payMethods": {"payMethod": {"type": "PBL", "value": "blik"}}}),
        ("TOK_1A", None, {"payMethods": {"payMethod": {"type": "CARD_TOKEN", "value": "TOK_1A"}}}),
        (
            "TOKC_1A",
            None,
            {
                "payMethods": {"payMethod": {"type": "CARD_TOKEN", "value": "TOKC_1A"}},
                "cardOnFile": "STANDARD_MERCHANT",
            },
        ),
        (
            "TOKC_1A",
            "https://shop.example/",
            {
                "payMethods": {"payMethod": {"type": "CARD_TOKEN", "value": "TOKC_1A"}},
                "cardOnFile": "STANDARD_CARDHOLDER",
                "continueUrl": "https://shop.example/",
            },
        ),
    ],
)
def test_a_payment_method_is_a_card_token_or_a_short_name(
    method: str, return_url: str | None, members: dict[str, object]
) -> None:
    with_method = body(replace(PAYU_PAYMENT, payment_method=method, return_url=return_url))
    assert with_method == body(PAYU_PAYMENT) | members


@pytest.mark.parametrize(
    "method", ["", "pm_card_visa", "4444333322221111", "TOK_", "TOK_a b", "TOKC_" + "x" * 129, "M"]
)
def test_a_token_of_another_gateway_is_declined_without_a_call(method: str) -> None:
    declined = refused_before_call(replace(PAYU_PAYMENT, payment_method=method))
    message = "not one of PayU's card tokens (TOK_, TOKC_) or payment methods"
    assert declined == Declined("payment_method_invalid", message)


@pytest.mark.parametrize("currency", ["JPY", "KWD", "CLF", "XAU", "PLZ"])
def test_a_currency_without_hundredths_is_declined_without_a_call(currency: str) -> None:
    declined = refused_before_call(replace(PAYU_PAYMENT, currency=currency))
    assert declined == Declined("currency_not_supported", f"PayU takes no {currency}")


@pytest.mark.parametrize("currency", ["PLN", "EUR", "HUF", "CZK", "USD"])
def test_a_currency_with_hundredths_is_taken(currency: str) -> None:
    assert refused_before_call(replace(PAYU_PAYMENT, currency=currency)) is None


def test_a_secret_is_quoted_in_the_form_of_a_token() -> None:
    form = parse_qs(token_body("300746", "a&b=c\r\n+\u017c"), strict_parsing=True)
    assert form == {
        "grant_type": ["client_credentials"],
        "client_id": ["300746"],
        "client_secret": ["a&b=c\r\n+\u017c"],
    }


@pytest.mark.parametrize(
    "setting",
    [
        {"pos_id": "shop"},
        {"pos_id": ""},
        {"notify_url": "okane.example"},
        {"notify_url": "https://okane.example/ x"},
        {"customer_ip": "0.0.0.0"},
        {"customer_ip": "localhost"},
        {"validity": timedelta(seconds=59)},
    ],
)
def test_a_setting_that_payu_refuses_is_refused_at_once(setting: dict[str, object]) -> None:
    [name] = setting
    with pytest.raises(ValueError, match=name):
        replace(SHOP, **setting)  # type: ignore[arg-type] # each is one of the settings
