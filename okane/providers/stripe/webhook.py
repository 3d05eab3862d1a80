"""The verification of Stripe's webhooks. Pure.

Guarantee: a notice comes only from a body that Stripe has signed with one of our secrets within the tolerance. It is a hint,
and its content decides nothing but which payment is looked up.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from okane.providers.answer_text import json_object, printable
from okane.providers.base import InvalidNotice, Notice
from okane.providers.stripe.disputes import dispute_ref
from okane.providers.stripe.intents import Object, as_object

SIGNATURE = "stripe-signature"
TOLERANCE = timedelta(minutes=5)  # Stripe's own; it signs each repeat of a delivery anew
_MAX_SIGNATURE = 4096
_MAX_KIND = 100
_DEAD_REFUNDS = ("failed", "canceled")
_REFUSALS = ("payment_intent.payment_failed", "payment_intent.canceled", "charge.failed", "charge.expired")


class StripeNoticeParser:
    """A `NoticeParser`. `secrets` is called for each webhook; two are valid while one replaces the other."""

    def __init__(self, secrets: Callable[[], Sequence[str]], *, tolerance: timedelta = TOLERANCE) -> None:
        self._secrets = secrets
        self._tolerance_s = tolerance.total_seconds()

    def __call__(self, headers: Mapping[str, str], body: bytes, *, now: datetime) -> Sequence[Notice]:
        """Return the notice in a webhook. Raises InvalidNotice."""
        signed_at_s, signatures = _signature(headers.get(SIGNATURE, ""))
        if not self._is_signed(f"{signed_at_s}.".encode() + body, signatures):
            raise InvalidNotice("no signature of a known secret")
        if int(signed_at_s) < now.timestamp() - self._tolerance_s:
            raise InvalidNotice("signed too long ago")
        event = json_object(body)
        if event is None:
            raise InvalidNotice("not a JSON object")
        return [_notice(event, body)]

    def _is_signed(self, payload: bytes, signatures: Sequence[bytes]) -> bool:
        """Compare with every secret, so that the time tells nothing about which one fits."""
        found = False
        for secret in self._secrets():
            if not secret.strip():  # a forger has it too
                continue
            expected = hmac.new(secret.encode(), payload, hashlib.sha256).hexdigest().encode()
            for signature in signatures:
                found |= hmac.compare_digest(expected, signature)
        return found


def _signature(header: str) -> tuple[str, Sequence[bytes]]:
    """Return the time and the v1 signatures of a header like `t=1700000000,v1=5257…,v1=…`. Raises InvalidNotice."""
    if len(header) > _MAX_SIGNATURE:
        raise InvalidNotice("a signature that is too long")
    items = [item.strip().partition("=") for item in header.split(",")]
    times = [value for name, _, value in items if name == "t"]
    signatures = [value.encode("utf-8", "replace") for name, _, value in items if name == "v1"]
    if len(times) != 1 or not (times[0].isascii() and times[0].isdigit() and len(times[0]) <= 12) or not signatures:
        raise InvalidNotice("no readable signature")
    return times[0], signatures


def _notice(event: Object, body: bytes) -> Notice:
    about = as_object((as_object(event.get("data")) or {}).get("object")) or {}
    metadata = as_object(about.get("metadata")) or {}
    event_id, kind, key = event.get("id"), event.get("type"), metadata.get("attempt_key")
    return Notice(
        event_id=event_id
        if isinstance(event_id, str) and event_id and event_id == printable(event_id)
        else hashlib.sha256(body).hexdigest(),
        kind=printable(kind)[:_MAX_KIND] if isinstance(kind, str) and kind else "unknown",
        payment_id=_id(metadata, "payment_id"),
        provider_ref=_intent_ref(about),
        provider_key=key if isinstance(key, str) and key == printable(key) else None,
        is_refusal=kind in _REFUSALS or (about.get("object") == "refund" and about.get("status") in _DEAD_REFUNDS),
        operation_id=_id(metadata, "operation_id") if about.get("object") == "refund" else None,
        dispute_ref=dispute_ref(about),
    )


def _id(metadata: Object, name: str) -> UUID | None:
    """Return an id in the metadata of an intent, of a charge, which inherits them, or of a refund, which has its own."""
    text = metadata.get(name)
    if not isinstance(text, str):
        return None
    try:
        return UUID(text)
    except ValueError:
        return None


def _intent_ref(about: Object) -> str | None:
    ref = about.get("id") if about.get("object") == "payment_intent" else about.get("payment_intent")
    return ref if isinstance(ref, str) and ref.startswith("pi_") and ref == printable(ref) else None
