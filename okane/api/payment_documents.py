"""The JSON documents of payments and receipts, in okane's members and in those of the queue before it (`/pay`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii as _quoted

from okane.api import timestamps
from okane.intake.accept import IntakeReceipt
from okane.payment import Payment, Status

MAX_ASCII = 1024  # characters of metadata: ASCII may take three times as many bytes as were sent


def metadata_json(metadata: Mapping[str, str]) -> str:
    """Return metadata as documents have it: in ASCII, unless an answer would be many times as long as its request."""
    if not metadata:
        return "{}"
    text = _ASCII.encode(dict(metadata))
    return text if len(text) <= MAX_ASCII else metadata_utf8(metadata)


def metadata_utf8(metadata: Mapping[str, str]) -> str:
    """Return metadata as JSON with every character as itself."""
    return _UTF_8.encode(dict(metadata))


_ASCII, _UTF_8 = (
    json.JSONEncoder(ensure_ascii=ascii_only, check_circular=False, separators=(",", ":"))
    for ascii_only in (True, False)
)


def receipt_json(receipt: IntakeReceipt) -> bytes:
    """Return `{"payment": {…}, "created": …, "enqueued": …}`."""
    return receipt_text(receipt).encode()


def receipt_text(receipt: IntakeReceipt) -> str:
    """Return the document of a receipt, for use within another document."""
    created, enqueued = _word(receipt.created), _word(receipt.enqueued)
    return f'{{"payment":{payment_document(receipt.payment)},"created":{created},"enqueued":{enqueued}}}'


def payment_json(payment: Payment) -> bytes:
    """Return `{"payment": {…}}`."""
    return f'{{"payment":{payment_document(payment)}}}'.encode()


def payment_document(payment: Payment) -> str:
    """Return the document of a payment, formatted by hand: json.dumps costs ten times as much for each accepted request.
    Strings of clients and providers are quoted; the rest needs no escapes."""
    metadata = metadata_json(payment.metadata)
    created_at = timestamps.to_text(payment.created_at)
    updated_at = created_at if payment.updated_at == payment.created_at else timestamps.to_text(payment.updated_at)
    document = (
        f'"id":"{payment.id}","amount":{payment.amount_minor},"currency":"{payment.currency}",'
        f'"status":"{payment.status}","idempotency_key":{_quoted(payment.idempotency_key)},'
        f'"attempts":{payment.attempts},"lane":"{payment.lane}","metadata":{metadata},'
        f'"created_at":"{created_at}","updated_at":"{updated_at}"'
    )
    # One by one: a new payment has none of them, and a loop over seven names takes a tenth of the whole.
    provider_ref = payment.attempt_ref if payment.provider_ref is None else payment.provider_ref
    if payment.provider is not None:
        document += f',"provider":{_quoted(payment.provider)}'
    if provider_ref is not None:
        document += f',"provider_ref":{_quoted(provider_ref)}'
    if payment.payment_method is not None:
        document += f',"payment_method":{_quoted(payment.payment_method)}'
    if payment.return_url is not None:
        document += f',"return_url":{_quoted(payment.return_url)}'
    if payment.decline_code is not None:
        document += f',"decline_code":{_quoted(payment.decline_code)}'
    if payment.last_error is not None:
        document += f',"last_error":{_quoted(payment.last_error)}'
    if payment.execute_at is not None:
        document += f',"execute_at":"{timestamps.to_text(payment.execute_at)}"'
    if payment.expires_at is not None:
        document += f',"expires_at":"{timestamps.to_text(payment.expires_at)}"'
    if payment.retry_at is not None and not payment.status.is_terminal:
        document += f',"retry_at":"{timestamps.to_text(payment.retry_at)}"'
    if payment.next_action is not None and payment.status is Status.REQUIRES_ACTION:
        action = payment.next_action
        document += f',"next_action":{{"kind":{_quoted(action.kind)},"url":{_quoted(action.url)}}}'
    return f"{{{document}}}"


# The older queue's word for each status: an open outcome is PROCESSING, a wait is QUEUED.
PAY_STATUS = {
    Status.PENDING: "QUEUED",
    Status.PROCESSING: "PROCESSING",
    Status.SUCCESS: "SUCCESS",
    Status.FAILED_RETRYABLE: "QUEUED",
    Status.FAILED_FINAL: "FAILED",
    Status.UNKNOWN: "PROCESSING",
    Status.CANCELED: "FAILED",
    Status.NEEDS_REVIEW: "PROCESSING",
    Status.REQUIRES_ACTION: "PROCESSING",
    Status.SUBMITTED: "PROCESSING",
}


def pay_json(payment: Payment, *, created: bool = False) -> bytes:
    """Return `{"payment_id": "pay_…", "amount": …, "status": …}`; a payment that was just created is PENDING."""
    status = "PENDING" if created else PAY_STATUS[payment.status]
    return f'{{"payment_id":"pay_{payment.id.hex}","amount":{payment.amount_minor},"status":"{status}"}}'.encode()


def pay_receipt_json(receipt: IntakeReceipt) -> bytes:
    """Return the older queue's document of a receipt."""
    return pay_json(receipt.payment, created=receipt.created)


def _word(value: bool) -> str:
    return "true" if value else "false"
