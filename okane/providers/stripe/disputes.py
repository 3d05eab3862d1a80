"""Pure functions from Stripe's disputes to okane's. What Stripe calls a warning is an inquiry: no money is taken yet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import UUID

from okane.dispute import DisputeStatus
from okane.http.connection import HttpResponse
from okane.providers.answer_text import json_object, printable
from okane.providers.base import NotFound, ReportedDispute, Unavailable, Unknown
from okane.providers.retry_after import retry_after
from okane.providers.stripe.amounts import minor_amount, stripe_amount
from okane.providers.stripe.intents import Object, as_object

_REF = re.compile(r"[A-Za-z0-9_]{1,255}")
_CURRENCY = re.compile("[a-z]{3}")
_MAX_REASON = 100
_STATUSES: Mapping[object, DisputeStatus] = {
    "warning_needs_response": DisputeStatus.NEEDS_RESPONSE,
    "needs_response": DisputeStatus.NEEDS_RESPONSE,
    "warning_under_review": DisputeStatus.UNDER_REVIEW,
    "under_review": DisputeStatus.UNDER_REVIEW,
    "warning_closed": DisputeStatus.CLOSED,
    "prevented": DisputeStatus.CLOSED,
    "won": DisputeStatus.WON,
    "lost": DisputeStatus.LOST,
}


def dispute_ref(about: Object) -> str | None:
    """Return the id of the dispute that an event is about, None if it is about something else."""
    ref = about.get("id")
    return ref if about.get("object") == "dispute" and isinstance(ref, str) and _REF.fullmatch(ref) else None


def parse_dispute(
    answer: HttpResponse, ref: str, *, now: datetime
) -> ReportedDispute | NotFound | Unavailable | Unknown:
    """Return the dispute in an answer to the GET of one, whose PaymentIntent was expanded."""
    if answer.status == 404:
        return NotFound()
    if answer.status in (401, 403):
        return Unavailable(f"HTTP {answer.status}", fault="config")
    if answer.status == 429:
        return Unavailable("HTTP 429", retry_after(answer, now=now), fault="limit")
    document = json_object(answer.body)
    if answer.status != 200 or document is None or dispute_ref(document) != ref:
        return Unknown(f"HTTP {answer.status}, and no dispute of this id")
    amount, currency, status = document.get("amount"), document.get("currency"), _STATUSES.get(document.get("status"))
    if type(amount) is not int or amount <= 0 or not isinstance(currency, str) or not _CURRENCY.fullmatch(currency):
        return Unknown("a dispute without a usable amount")
    if status is None:
        return Unknown(f"a dispute with the status {printable(document.get('status'))!r}")
    minor, reason = minor_amount(amount, currency.upper()), document.get("reason")
    if stripe_amount(minor, currency.upper()) != amount:
        return Unknown(f"a dispute of {amount} {currency}, which is no amount of that currency")
    return ReportedDispute(
        provider_ref=ref,
        payment_id=_payment_id(document),
        amount_minor=minor,
        currency=currency.upper(),
        status=status,
        reason=printable(reason)[:_MAX_REASON] if isinstance(reason, str) and reason else None,
        due_by=_due_by(document),
    )


def _payment_id(document: Object) -> UUID | None:
    intent = as_object(document.get("payment_intent")) or {}
    text = (as_object(intent.get("metadata")) or {}).get("payment_id")
    try:
        return UUID(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _due_by(document: Object) -> datetime | None:
    due_s = (as_object(document.get("evidence_details")) or {}).get("due_by")
    if type(due_s) is not int or not 0 < due_s < 2**35:
        return None
    return datetime.fromtimestamp(due_s, UTC)
