"""The requests to Stripe: one body for a payment and its key, and nothing of a payment that could add a parameter."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

from hypothesis import given
from hypothesis import strategies as st

from okane.payment import Status
from okane.providers.base_url import parse_base_url
from okane.providers.stripe.requests import API_VERSION, StripeRequests, charge_form
from tests.okane.stripe_answers import CARD_PAYMENT, OURS
from tests.payments import NOW

REQUESTS = StripeRequests(parse_base_url("https://api.stripe.com"))
KEY = "Authorization: Bearer sk_test_1\r\n"
FORM = {
    "amount": "440",
    "currency": "usd",
    "confirm": "true",
    "capture_method": "automatic",
    "payment_method": "pm_card_visa",
    "automatic_payment_methods[enabled]": "true",
    "metadata[payment_id]": OURS["payment_id"],
    "metadata[attempt_key]": OURS["attempt_key"],
}
OFF_SESSION = {"automatic_payment_methods[allow_redirects]": "never", "off_session": "true"}


def form(body: str) -> dict[str, str]:
    pairs = parse_qsl(body, keep_blank_values=True, strict_parsing=True)
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_a_charge_makes_and_confirms_an_intent_under_the_payments_key() -> None:
    raw = REQUESTS.charge(CARD_PAYMENT, amount=440, payment_method="pm_card_visa", authorization=KEY)
    head, _, body = raw.decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    assert first == "POST /v1/payment_intents HTTP/1.1"
    assert {
        "Host: api.stripe.com",
        f"Stripe-Version: {API_VERSION}",
        "Content-Type: application/x-www-form-urlencoded",
        "Idempotency-Key: pk-1",
        f"Content-Length: {len(body)}",
        "Authorization: Bearer sk_test_1",
    } <= set(lines)
    assert form(body) == FORM | OFF_SESSION


def test_a_method_of_a_customer_is_charged_for_that_customer() -> None:
    body = charge_form(CARD_PAYMENT, amount=440, payment_method="cus_17/pm_1")
    assert form(body) == FORM | OFF_SESSION | {"customer": "cus_17", "payment_method": "pm_1"}
    for token in ("a/b", "cus_17", "pm_1/cus_17"):
        assert form(charge_form(CARD_PAYMENT, amount=440, payment_method=token)).get("customer") is None


def test_a_payment_with_a_return_url_is_charged_on_session() -> None:
    url = "https://shop.example/done?order=1&x=ü"
    body = charge_form(replace(CARD_PAYMENT, return_url=url), amount=440, payment_method="pm_card_visa")
    assert form(body) == FORM | {"return_url": url}


def test_the_charge_of_a_payment_under_one_key_is_always_the_same_request() -> None:
    """Stripe refuses a key with other parameters. What changes in a row between two claims is none of them."""
    later = replace(
        CARD_PAYMENT,
        status=Status.UNKNOWN,
        attempts=7,
        retries=2,
        version=19,
        updated_at=NOW + timedelta(hours=1),
        retry_at=NOW,
        last_error="no answer within 30 s",
        provider="stripe",
        attempt_ref="pi_1",
        metadata={"order": "1"},
    )
    first, second = (
        REQUESTS.charge(one, amount=440, payment_method="pm_1", authorization=KEY) for one in (CARD_PAYMENT, later)
    )
    assert first == second


@given(st.text(min_size=1), st.text(min_size=1))
def test_no_text_of_a_payment_adds_a_parameter_or_a_header(token: str, url: str) -> None:
    token, url = (text.encode("utf-8", "replace").decode() for text in (token, url))
    payment = replace(CARD_PAYMENT, return_url=url)
    raw = REQUESTS.charge(payment, amount=440, payment_method=token, authorization=KEY)
    head, _, body = raw.decode("ascii").partition("\r\n\r\n")
    assert form(body) == FORM | {"payment_method": token, "return_url": url}
    assert head.count("\r\n") == 9


def test_look_ups_are_gets() -> None:
    requests = StripeRequests(parse_base_url("http://127.0.0.1:1/stripe/"))
    since = datetime(2026, 1, 1, tzinfo=UTC)
    targets = [
        request.split(" ")[:2]
        for request in (
            requests.retrieve("pi_1/../x?y"),
            requests.list_since(since, after=None),
            requests.list_since(since, after="pi_&"),
        )
    ]
    assert targets == [
        ["GET", "/stripe/v1/payment_intents/pi_1%2F..%2Fx%3Fy"],
        ["GET", "/stripe/v1/payment_intents?created[gte]=1767225600&limit=100"],
        ["GET", "/stripe/v1/payment_intents?created[gte]=1767225600&limit=100&starting_after=pi_%26"],
    ]
    search = urlsplit(requests.search(CARD_PAYMENT).split(" ")[1])
    assert search.path == "/stripe/v1/payment_intents/search"
    assert dict(parse_qsl(search.query)) == {"query": f"metadata['payment_id']:'{CARD_PAYMENT.id}'", "limit": "100"}
