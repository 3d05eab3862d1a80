"""The answers about payments and receipts, in okane's members and in those of the queue before it (`/pay`)."""

from __future__ import annotations

from okane.intake.accept import IntakeReceipt
from okane.payment import Payment, Status
from okane.payment_json import payment_document


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
    Status.AUTHORIZED: "PROCESSING",
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
