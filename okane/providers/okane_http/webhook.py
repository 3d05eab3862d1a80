"""The verification of notices in okane's own protocol, signed as Standard Webhooks defines it (`v1`). Pure.

Guarantee: a notice comes only from a body that was signed with one of our secrets within the tolerance. It is a hint, and its
content decides nothing but which payment, operation or dispute is looked up.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from okane.providers.answer_text import json_object, printable
from okane.providers.base import InvalidNotice, Notice

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
TOLERANCE = timedelta(minutes=5)
_MAX_HEADER = 1024
_MAX_KIND = 100
_REFUSALS = ("capture.failed", "void.failed", "refund.failed")


class OkaneHttpNoticeParser:
    """A `NoticeParser`. `secrets` is called for each webhook; two are valid while one replaces the other. The key of a
    signature is the secret's own text."""

    def __init__(self, secrets: Callable[[], Sequence[str]], *, tolerance: timedelta = TOLERANCE) -> None:
        self._secrets = secrets
        self._tolerance_s = tolerance.total_seconds()

    def __call__(self, headers: Mapping[str, str], body: bytes, *, now: datetime) -> Sequence[Notice]:
        """Return the notice in a webhook. Raises InvalidNotice."""
        event_id, signed_at_s, signatures = (headers.get(name, "") for name in (ID, TIMESTAMP, SIGNATURE))
        if max(len(event_id), len(signed_at_s), len(signatures)) > _MAX_HEADER:
            raise InvalidNotice("a header that is too long")
        if not event_id or event_id != printable(event_id) or not signed_at_s.isascii() or not signed_at_s.isdigit():
            raise InvalidNotice("no readable signature")
        if not self._is_signed(f"{event_id}.{signed_at_s}.".encode() + body, signatures.split()):
            raise InvalidNotice("no signature of a known secret")
        if abs(int(signed_at_s) - now.timestamp()) > self._tolerance_s:
            raise InvalidNotice("signed too long ago")
        event = json_object(body)
        if event is None:
            raise InvalidNotice("not a JSON object")
        return [_notice(event_id, event)]

    def _is_signed(self, payload: bytes, signatures: Sequence[str]) -> bool:
        """Compare with every secret, so that the time tells nothing about which one fits."""
        found = False
        for secret in self._secrets():
            if not secret.strip():  # a forger has it too
                continue
            expected = b"v1," + b64encode(hmac.new(secret.encode(), payload, hashlib.sha256).digest())
            for signature in signatures:
                found |= hmac.compare_digest(expected, signature.encode("utf-8", "replace"))
        return found


def _notice(event_id: str, event: Mapping[str, object]) -> Notice:
    kind = _text(event, "type", _MAX_KIND)
    return Notice(
        event_id=event_id,
        kind=kind or "unknown",
        payment_id=_id(event, "payment_id"),
        provider_ref=_text(event, "provider_ref"),
        provider_key=_text(event, "charge"),
        is_refusal=kind in _REFUSALS,
        operation_id=_id(event, "operation_id"),
        dispute_ref=_text(event, "dispute"),
    )


def _text(event: Mapping[str, object], name: str, limit: int = 255) -> str | None:
    text = event.get(name)
    return text if isinstance(text, str) and 0 < len(text) <= limit and text == printable(text) else None


def _id(event: Mapping[str, object], name: str) -> UUID | None:
    text = event.get(name)
    if not isinstance(text, str):
        return None
    try:
        return UUID(text)
    except ValueError:
        return None
