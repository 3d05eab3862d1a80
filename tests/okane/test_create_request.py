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

from okane.api import create_request, payment_documents, payment_ids, strict_json
from okane.intake.accept import IntakeReceipt
from okane.payment import Payment, Status
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
)


def document(payment: Payment) -> dict[str, Any]:
    def moment(value: datetime) -> str:
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    retry_at = None if payment.retry_at is None or payment.status.is_terminal else moment(payment.retry_at)
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
        "provider_ref": payment.provider_ref,
        "decline_code": payment.decline_code,
        "last_error": payment.last_error,
        "retry_at": retry_at,
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


CHARACTERS = [*'"\\{}[]:, \n\t\x00\x7f01.e-é\ufeff\U0001f4b6']
NAMES = ["amount", "currency", "idempotency_key", "metadata", "execute_at", "expires_at", "other"]
VALUES = st.one_of(
    st.integers(-1, 2**64),
    st.floats(),
    st.booleans(),
    st.none(),
    st.text(st.sampled_from(CHARACTERS) | st.characters(), max_size=5),
    st.sampled_from(["USD", "2030-01-01T00:00:00Z", "k-1"]),
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
    found = create_request.parse_fast(body)
    if found is not None:
        assert found == create_request.validate_create_request(strict_json.loads(body))


@pytest.mark.parametrize(
    ("body", "quick"),
    [
        (b'{"amount": 1}', True),
        (b'{"amount":1,"idempotency_key":null,"currency":"USD","metadata":{"a":"b","c":""}}', True),
        (b'{"amount":1,"execute_at":"2030-01-01T00:00:00Z","expires_at":"2030-01-02T00:00:00Z"}', True),
        ('{"amount": 1, "metadata": {"Zoë": "é"}}'.encode(), True),
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
    assert (create_request.parse_fast(body) is not None) is quick
