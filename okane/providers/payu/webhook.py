"""The verification of PayU's notices (`OpenPayu-Signature`). Pure.

The signature is a hash over the body and the second key of the point of sale, without a time: an old notice verifies for
ever. That is harmless, because a notice only causes a look-up. PayU signs with MD5 unless the point of sale was switched
to SHA-256, so both are accepted.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from okane.providers.answer_text import json_object, printable
from okane.providers.base import InvalidNotice, Notice, NoticeParser

SIGNATURE = "openpayu-signature"
_MAX_SIGNATURE = 1024


def notice_parser(second_keys: Callable[[], Sequence[str]]) -> NoticeParser:
    """Return the parser of the notices to one point of sale. Each of the keys of the moment is valid."""

    def parse(headers: Mapping[str, str], body: bytes, *, now: datetime) -> Sequence[Notice]:
        _verify(headers.get(SIGNATURE, ""), body, second_keys())
        return [_notice(body)]

    return parse


def _verify(header: str, body: bytes, second_keys: Sequence[str]) -> None:
    if len(header) > _MAX_SIGNATURE:
        raise InvalidNotice("too long a signature")
    parts: dict[str, str] = {}
    for part in header.split(";"):
        name, _, text = part.partition("=")
        if parts.setdefault(name.strip().lower(), text.strip()) != text.strip():
            raise InvalidNotice("a signature with two meanings")
    digest = _DIGESTS.get(parts.get("algorithm", "").upper())
    if digest is None:
        raise InvalidNotice("an unknown algorithm of signatures")
    signature = parts.get("signature", "").lower().encode("ascii", "replace")
    # Every key is tried, whichever matches: the time must not tell which.
    matches = [hmac.compare_digest(digest(body + key.encode()).encode(), signature) for key in second_keys if key]
    if not any(matches):
        raise InvalidNotice("a wrong signature")


def _notice(body: bytes) -> Notice:
    document = json_object(body)
    if document is None:
        raise InvalidNotice("not a JSON object")
    event_id = hashlib.sha256(body).hexdigest()
    match document:
        case {"refund": dict() as refund}:
            kind, named = f"refund.{_kind(refund)}", document
        case {"order": dict() as order}:
            kind, named = f"order.{_kind(order)}", order
        case _:  # payouts, statements: nothing that a payment waits for
            return Notice(event_id, "other", None, None)
    order_id, key = named.get("orderId"), named.get("extOrderId")
    payment_id = _payment_id(key)
    return Notice(
        event_id,
        kind,
        payment_id,
        _text_or_none(order_id, limit=64),
        provider_key=None if payment_id is None else _text_or_none(key, limit=255),
        is_refusal=kind in ("order.canceled", "refund.canceled"),
        operation_id=_operation_id(document),
    )


def _kind(part: Mapping[str, object]) -> str:
    status = part.get("status")
    return printable(status)[:32].lower() if isinstance(status, str) else "unknown"


def _payment_id(key: object) -> UUID | None:
    """Return the payment or operation of a provider key: its id, with `:` and a version after a manual retry."""
    if not isinstance(key, str):
        return None
    text = key.partition(":")[0]
    try:
        payment_id = UUID(text)
    except ValueError:
        return None
    return payment_id if str(payment_id) == text else None


def _operation_id(document: Mapping[str, object]) -> UUID | None:
    """Return the operation of a refund: its key at PayU begins with its id."""
    refund = document.get("refund")
    return _payment_id(refund.get("extRefundId")) if isinstance(refund, dict) else None


def _text_or_none(value: object, *, limit: int) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= limit and value == printable(value) else None


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


_DIGESTS: Mapping[str, Callable[[bytes], str]] = {"MD5": _md5, "SHA-256": _sha256, "SHA256": _sha256}
