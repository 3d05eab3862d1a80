"""Requests and documents: parsers and writers made by hand, against a JSON library."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from okane.api import create_request, payment_documents, payment_ids, strict_json
from okane.intake.accept import IntakeReceipt
from okane.payment import NextAction, Payment, Status
from okane.payment_id import parse_id

TEXT = st.text(max_size=20)
MOMENTS = st.datetimes(
    min_value=datetime(2020, 1, 1),
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]),
)
PAYMENTS = st.builds(
    Payment,
    id=st.uuids(),
    account_id=st.just("default"),
    idempotency_key=TEXT,
    amount_minor=st.integers(1, 2**63 - 1),
    currency=st.sampled_from(["USD", "JPY"]),
    lane=st.sampled_from(["critical", "low"]),
    status=st.sampled_from(list(Status)),
    attempts=st.integers(0, 9),
    retries=st.just(0),
    version=st.just(0),
    provider_key=TEXT,
    created_at=MOMENTS,
    updated_at=MOMENTS,
    metadata=st.dictionaries(TEXT, TEXT, max_size=3),
    provider_ref=st.none() | TEXT,
    decline_code=st.none() | TEXT,
    last_error=st.none() | TEXT,
    retry_at=st.none() | MOMENTS,
    provider=st.none() | TEXT,
    attempt_ref=st.none() | TEXT,
    next_action=st.none() | st.builds(NextAction, TEXT),
    payment_method=st.none() | TEXT,
    return_url=st.none() | TEXT,
    manual_capture=st.none() | st.just(True),
    capture_before=st.none() | MOMENTS,
    amount_captured=st.none() | st.integers(1, 2**63 - 1),
    amount_refunded=st.none() | st.integers(1, 2**63 - 1),
)


def document(payment: Payment) -> dict[str, Any]:
    def moment(value: datetime) -> str:
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    retry_at = None if payment.retry_at is None or payment.status.is_terminal else moment(payment.retry_at)
    held = payment.capture_before if payment.manual_capture and payment.status is Status.AUTHORIZED else None
    action = payment.next_action if payment.status is Status.REQUIRES_ACTION else None
    members = {
        "id": str(payment.id),
        "amount": payment.amount_minor,
        "currency": payment.currency,
        "status": str(payment.status),
        "idempotency_key": payment.idempotency_key,
        "attempts": payment.attempts,
        "lane": payment.lane,
        "metadata": payment.metadata,
        "created_at": moment(payment.created_at),
        "updated_at": moment(payment.updated_at),
        "provider": payment.provider,
        "provider_ref": payment.attempt_ref if payment.provider_ref is None else payment.provider_ref,
        "payment_method": payment.payment_method,
        "return_url": payment.return_url,
        "next_action": action and {"kind": "redirect", "url": action.url},
        "decline_code": payment.decline_code,
        "last_error": payment.last_error,
        "retry_at": retry_at,
        "capture_method": "manual" if payment.manual_capture else None,
        "capture_before": held and moment(held),
        "amount_captured": payment.captured_minor if payment.manual_capture and payment.captured_minor else None,
        "amount_refunded": payment.amount_refunded,
    }
    return {name: value for name, value in members.items() if value is not None}


@given(PAYMENTS)
def test_a_payment_is_written_as_a_library_would(payment: Payment) -> None:
    assert json.loads(payment_documents.payment_json(payment)) == {"payment": document(payment)}
    assert payment_documents.payment_json(payment).isascii()


@given(PAYMENTS, st.booleans(), st.booleans())
def test_a_receipt_is_written_as_a_library_would(payment: Payment, created: bool, enqueued: bool) -> None:
    written = json.loads(payment_documents.receipt_json(IntakeReceipt(payment, created, enqueued)))
    assert written == {"payment": document(payment), "created": created, "enqueued": enqueued}


@given(PAYMENTS)
def test_the_older_queues_document(payment: Payment) -> None:
    written = json.loads(payment_documents.pay_json(payment))
    assert UUID(written["payment_id"].removeprefix("pay_")) == payment.id
    assert (written["amount"], written["status"]) == (
        payment.amount_minor,
        payment_documents.PAY_STATUS[payment.status],
    )


@given(st.from_regex(payment_ids.ID["pattern"].replace("$", r"\Z")))
def test_every_id_of_the_document_is_read(text: str) -> None:
    found = parse_id(text)
    assert found is not None
    assert found.hex == text.removeprefix("pay_").replace("-", "").lower()


@pytest.mark.parametrize("text", ["PAY_{}", "Pay_{}", "pay_pay_{}", "{}0", "urn:uuid:{}", "{{{}}}"])
def test_a_text_that_is_not_an_id_names_no_payment(text: str) -> None:
    assert parse_id(text.format("0" * 32)) is None


@given(st.integers(1, 10**18), st.sampled_from(["USD", "EUR"]), st.dictionaries(TEXT, TEXT, max_size=3))
def test_a_fingerprint_is_that_of_the_canonical_document(amount: int, currency: str, metadata: dict[str, str]) -> None:
    """Rows of earlier versions hold these: another spelling would make every repeat a reuse."""
    meaning = {"amount": amount, "currency": currency, "metadata": metadata}
    canonical = json.dumps(meaning, sort_keys=True, separators=(",", ":")).encode()
    request = create_request.CreatePayment.model_construct(amount=amount, metadata=metadata)
    new = create_request.to_new_payment(request, account_id="default", key="k-1", currency=currency, lane="low")
    assert new.fingerprint == hashlib.sha256(canonical).digest()


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1), st.none() | st.just("stripe"))
def test_the_members_of_providers_are_a_part_of_the_fingerprint_where_they_are_given(
    token: str, provider: str | None
) -> None:
    request = create_request.CreatePayment.model_construct(
        amount=1, payment_method=token, return_url="https://shop.example/done", provider=provider
    )
    new = create_request.to_new_payment(request, account_id="default", key="k-1", currency="USD", lane="low")
    members = {"payment_method": token, "return_url": "https://shop.example/done", "provider": provider}
    given_ones = {name: text for name, text in members.items() if text is not None}
    meaning = {"amount": 1, "currency": "USD", "metadata": {}} | given_ones
    assert new.fingerprint == hashlib.sha256(json.dumps(meaning, separators=(",", ":")).encode()).digest()
    assert (new.payment_method, new.return_url, new.requested_provider) == tuple(members.values())


@pytest.mark.parametrize(("method", "manual"), [(None, None), ("automatic", None), ("manual", True)])
def test_the_method_of_capture_changes_the_meaning_where_it_is_not_the_default(
    method: create_request.CaptureMethod | None, manual: bool | None
) -> None:
    plain = create_request.CreatePayment(amount=1, provider="stripe")
    request = plain.model_copy(update={"capture_method": method})
    news = [
        create_request.to_new_payment(one, account_id="default", key="k-1", currency="USD", lane="low")
        for one in (plain, request)
    ]
    assert news[1].manual_capture is manual
    assert (news[0].fingerprint != news[1].fingerprint) == bool(manual)


CHARACTERS = [*'"\\{}[]:, \n\t\x00\x7f01.e-é\ufeff\U0001f4b6']
NAMES = ["amount", "currency", "idempotency_key", "metadata", "execute_at", "expires_at", "other"]
NAMES += ["payment_method", "return_url", "provider", "capture_method"]
VALUES = st.one_of(
    st.integers(-1, 2**64),
    st.floats(),
    st.booleans(),
    st.none(),
    st.text(st.sampled_from(CHARACTERS) | st.characters(), max_size=5),
    st.sampled_from(["USD", "2030-01-01T00:00:00Z", "k-1", "https://shop.example/", "manual"]),
    st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3),
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Generate valid bodies and others: repeated names, strings with and without escapes, random changes."""
    members = [("amount", 1), *draw(st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=4))]
    ascii_only = draw(st.booleans())
    written = [f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=ascii_only)}" for name, value in members]
    text = "{" + ", ".join(written) + "}"
    for character in draw(st.lists(st.sampled_from(CHARACTERS), max_size=2)):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + character + text[at + draw(st.integers(0, 1)) :]
    return text.encode("utf-8", "surrogatepass")


@settings(max_examples=500)
@given(bodies())
def test_the_fast_parser_agrees_with_the_strict_one(body: bytes) -> None:
    for model in (create_request.CreatePayment, create_request.CreateOlderPayment):
        found = create_request.parse_fast(body, model)
        if found is not None:
            assert found == create_request.validate_create_request(strict_json.loads(body), model)


@pytest.mark.parametrize(
    ("body", "quick"),
    [
        (b'{"amount": 1}', True),
        (b'{"amount":1,"idempotency_key":null,"currency":"USD","metadata":{"a":"b","c":""}}', True),
        (b'{"amount":1,"execute_at":"2030-01-01T00:00:00Z","expires_at":"2030-01-02T00:00:00Z"}', True),
        ('{"amount": 1, "metadata": {"Zoë": "é"}}'.encode(), True),
        (
            b'{"amount":1,"payment_method":"pm_card_visa","return_url":"https://shop.example/?a=b#c","provider":"stripe"}',
            True,
        ),
        (b'{"amount":1,"payment_method":null,"provider":"stripe"}', True),
        (b'{"amount":1,"capture_method":"manual","provider":"stripe"}', True),
        (b'{"amount":1,"capture_method":"manual","capture_method":"manual"}', False),
        (b'{"amount":1,"provider":"http","provider":"http"}', False),
        (b'{"amount":1,"payment_method":"a","payment_method":null}', False),
        (b'{"amount":1,"metadata":{"a":"b","a":"b"}}', False),
        (b'{"amount":1,"amount":1}', False),
        (b'{"amount":1,"currency":null,"currency":"USD"}', False),
        (b'{"amount":1,"currency":"USD","currency":null}', False),
        (b'{"amount":1,"metadata":{"a":"\\u0062"}}', False),
        (b'{"amount":1.0}', False),
        (b'{"amount":1,"other":1}', False),
        (b"", False),
    ],
)
def test_the_fast_parser_leaves_doubtful_bodies_to_the_strict_one(body: bytes, quick: bool) -> None:
    assert (create_request.parse_fast(body, create_request.CreatePayment) is not None) is quick


def payment_with(**members: str) -> create_request.CreatePayment:
    return create_request.CreatePayment.model_validate({"amount": 1, **members})


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example",
        "https://shop.example:8443/orders/4711?paid=%C3%A9&x[]=1#done",
        "https://127.0.0.1/",
        "http://localhost:3000/return",
        "http://127.0.0.1:65535",
        "http://[::1]:80/",
        "https://shop.example/" + "a" * (create_request.MAX_RETURN_URL - len("https://shop.example/")),
    ],
)
def test_a_return_url_is_taken_as_it_is(url: str) -> None:
    assert payment_with(return_url=url).return_url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "shop.example/return",
        "//shop.example",
        "http://shop.example/",
        "http://localhost.shop.example/",
        "http://127.0.0.1.shop.example/",
        "http://127.1/",
        "javascript:alert(1)",
        "shop://return",
        "https://",
        "https:///return",
        "https://user:password@shop.example/",
        "http://localhost@shop.example/",
        "https://shop.example\\@other.example/",
        "https://shop.example:65536/",
        "https://shop.example:/",
        "https://sh op.example/",
        "https://shop.example/a b",
        "https://shop.example/\n",
        "https://shöp.example/",
        "https://shop.example/" + "a" * create_request.MAX_RETURN_URL,
    ],
)
def test_a_return_url_that_leads_elsewhere_or_unencrypted_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="must be an https URL"):
        payment_with(return_url=url)


@pytest.mark.parametrize(
    "members",
    [
        {"payment_method": ""},
        {"payment_method": "pm card"},
        {"payment_method": "pm_é"},
        {"payment_method": "pm\n"},
        {"payment_method": "p" * 256},
        {"provider": ""},
        {"provider": "Stripe"},
        {"provider": "1st"},
        {"provider": "stripe\n"},
        {"provider": "p" * 33},
    ],
    ids=str,
)
def test_a_token_or_a_provider_that_no_gateway_can_have_is_refused(members: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="must be"):
        payment_with(**members)
