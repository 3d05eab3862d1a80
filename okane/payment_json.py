"""The JSON document of a payment, as the API and the console show it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii as _quoted

from okane.payment import Payment, Status
from okane.timestamp_text import to_text

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


def payment_document(payment: Payment) -> str:
    """Return the document of a payment, formatted by hand: json.dumps costs ten times as much for each accepted request.
    Strings of clients and providers are quoted; the rest needs no escapes."""
    metadata = metadata_json(payment.metadata)
    created_at = to_text(payment.created_at)
    updated_at = created_at if payment.updated_at == payment.created_at else to_text(payment.updated_at)
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
        document += f',"execute_at":"{to_text(payment.execute_at)}"'
    if payment.expires_at is not None:
        document += f',"expires_at":"{to_text(payment.expires_at)}"'
    if payment.retry_at is not None and not payment.status.is_terminal:
        document += f',"retry_at":"{to_text(payment.retry_at)}"'
    if payment.next_action is not None and payment.status is Status.REQUIRES_ACTION:
        action = payment.next_action
        document += f',"next_action":{{"kind":{_quoted(action.kind)},"url":{_quoted(action.url)}}}'
    if payment.manual_capture or payment.amount_refunded:
        document += _moved(payment)
    return f"{{{document}}}"


def _moved(payment: Payment) -> str:
    """Return the members about captures and refunds."""
    document = ""
    if payment.manual_capture:
        document = ',"capture_method":"manual"'
        if payment.capture_before is not None and payment.status is Status.AUTHORIZED:
            document += f',"capture_before":"{to_text(payment.capture_before)}"'
        if payment.status is Status.SUCCESS:
            document += f',"amount_captured":{payment.captured_minor}'
    return f'{document},"amount_refunded":{payment.amount_refunded}' if payment.amount_refunded else document
