"""PayU's notices: signatures, and what is read from a verified body."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from okane.providers.base import InvalidNotice, Notice
from okane.providers.payu.webhook import notice_parser
from tests.okane.payu_orders import ORDER, PAYU_PAYMENT
from tests.operations import OPERATION
from tests.payments import NOW

KEY, OLD_KEY = "b6ca15b0d1020e8094d9b5f8d163db54", "13a980d4f851f3d9a1cfc792fb1f5e50"
COMPLETED: dict[str, object] = {
    "order": {"orderId": ORDER, "extOrderId": PAYU_PAYMENT.provider_key, "status": "COMPLETED", "totalAmount": "440"},
    "localReceiptDateTime": "2026-01-01T00:00:00.000+01:00",
    "properties": [{"name": "PAYMENT_ID", "value": "1234567890"}],
}


def signed(body: bytes, key: str = KEY, algorithm: str = "SHA-256") -> dict[str, str]:
    digest = hashlib.md5 if algorithm == "MD5" else hashlib.sha256
    signature = digest(body + key.encode()).hexdigest()
    return {"openpayu-signature": f"sender=checkout;signature={signature};algorithm={algorithm};content=DOCUMENT"}


def parse(headers: dict[str, str], body: bytes, keys: Sequence[str] = (KEY, OLD_KEY)) -> Sequence[Notice]:
    return notice_parser(lambda: keys)(headers, body, now=NOW)


def notice_of(document: object) -> Notice:
    body = json.dumps(document).encode()
    [notice] = parse(signed(body), body)
    return notice


@pytest.mark.parametrize("algorithm", ["SHA-256", "MD5"])
@pytest.mark.parametrize("key", [KEY, OLD_KEY])
def test_a_notice_under_either_key_and_algorithm_is_read(key: str, algorithm: str) -> None:
    body = json.dumps(COMPLETED).encode()
    event_id = hashlib.sha256(body).hexdigest()
    notice = Notice(event_id, "order.completed", PAYU_PAYMENT.id, ORDER, provider_key=PAYU_PAYMENT.provider_key)
    assert parse(signed(body, key, algorithm), body) == [notice]


def test_the_keys_of_the_moment_count() -> None:
    keys = [OLD_KEY]
    parser = notice_parser(lambda: keys)
    body = json.dumps(COMPLETED).encode()
    with pytest.raises(InvalidNotice):
        parser(signed(body), body, now=NOW)
    keys.append(KEY)
    assert parser(signed(body), body, now=NOW)


@pytest.mark.parametrize("status", ["NEW", "PENDING", "WAITING_FOR_CONFIRMATION", "CANCELED"])
def test_the_kind_names_the_status(status: str) -> None:
    notice = notice_of({"order": {"orderId": ORDER, "status": status}})
    assert notice.kind == f"order.{status.lower()}"
    assert notice.is_refusal == (status == "CANCELED")


@pytest.mark.parametrize(("status", "is_refusal"), [("FINALIZED", False), ("PENDING", False), ("CANCELED", True)])
def test_a_refund_of_ours_names_its_operation_and_says_if_no_money_moved(status: str, is_refusal: bool) -> None:
    refund = {"status": status, "amount": "440", "extRefundId": f"{OPERATION.id}:3"}
    notice = notice_of({"orderId": ORDER, "extOrderId": PAYU_PAYMENT.provider_key, "refund": refund})
    assert (notice.operation_id, notice.is_refusal) == (OPERATION.id, is_refusal)


def test_a_refund_names_its_payment() -> None:
    key = f"{PAYU_PAYMENT.id}:4"
    notice = notice_of({"orderId": ORDER, "extOrderId": key, "refund": {"status": "FINALIZED", "amount": "440"}})
    assert (notice.kind, notice.payment_id, notice.provider_ref) == ("refund.finalized", PAYU_PAYMENT.id, ORDER)
    assert (notice.provider_key, notice.is_refusal) == (key, False)


@pytest.mark.parametrize(
    ("key", "payment_id"),
    [
        (str(PAYU_PAYMENT.id), PAYU_PAYMENT.id),
        (f"{PAYU_PAYMENT.id}:12", PAYU_PAYMENT.id),
        (str(PAYU_PAYMENT.id).upper(), None),
        (f"{{{PAYU_PAYMENT.id}}}", None),
        ("order-7", None),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_the_payment_is_in_the_ext_order_id(key: object, payment_id: UUID | None) -> None:
    notice = notice_of({"order": {"orderId": ORDER, "extOrderId": key}})
    assert (notice.payment_id, notice.provider_key) == (payment_id, key if payment_id else None)


@pytest.mark.parametrize("order_id", ["", "x" * 65, "a\x00b", None, 7])
def test_an_id_that_no_row_can_hold_is_left_out(order_id: object) -> None:
    notice = notice_of({"order": {"orderId": order_id, "extOrderId": PAYU_PAYMENT.provider_key, "status": "\x00" * 99}})
    assert (notice.payment_id, notice.provider_ref) == (PAYU_PAYMENT.id, None)
    assert notice.kind == "order." + "?" * 32


@pytest.mark.parametrize("document", [{}, {"payout": {}}, {"order": []}])
def test_a_notice_about_no_order_is_valid_and_about_no_payment(document: object) -> None:
    notice = notice_of(document)
    assert (notice.kind, notice.payment_id, notice.provider_ref) == ("other", None, None)


BODY = json.dumps(COMPLETED).encode()
GOOD = signed(BODY)["openpayu-signature"]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "x" * 1025,
        "signature=;algorithm=SHA-256",
        GOOD.replace("algorithm=SHA-256", "algorithm=MD5"),
        GOOD.replace("algorithm=SHA-256", "algorithm=SHA-1"),
        GOOD.replace(";algorithm=SHA-256", ""),
        GOOD.replace("signature=", "signature=0"),
        GOOD + ";signature=0",
        "signature=0;" + GOOD,
        GOOD + ";algorithm=MD5",
        GOOD.replace("signature=", "signature=\u017c"),
        GOOD.replace("signature=", "signature=\udcff"),
    ],
)
def test_a_bad_signature_is_refused(header: str) -> None:
    with pytest.raises(InvalidNotice):
        parse({"openpayu-signature": header}, BODY)


def test_a_notice_without_a_signature_is_refused() -> None:
    with pytest.raises(InvalidNotice):
        parse({}, BODY)


@pytest.mark.parametrize("keys", [[], [""], ["another"]])
def test_without_the_key_no_notice_is_valid(keys: list[str]) -> None:
    with pytest.raises(InvalidNotice):
        parse(signed(BODY), BODY, keys)
    with pytest.raises(InvalidNotice):
        parse(signed(BODY, ""), BODY, keys)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 60_000])
def test_a_signed_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidNotice):
        parse(signed(body), body)


@given(body=st.binary(max_size=60), position=st.integers(0, len(BODY) - 1), header=st.text(max_size=80))
def test_no_changed_body_or_header_verifies(body: bytes, position: int, header: str) -> None:
    changed = BODY[:position] + bytes([BODY[position] ^ 1]) + BODY[position + 1 :]
    for forged in (body, changed):
        with pytest.raises(InvalidNotice):
            parse({"openpayu-signature": GOOD}, forged)
    with pytest.raises(InvalidNotice):
        parse({"openpayu-signature": header}, BODY)
