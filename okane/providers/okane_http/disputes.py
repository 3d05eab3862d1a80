"""A pure function from an answer to `GET /disputes/{ref}` to the dispute in it."""

from __future__ import annotations

import re
from datetime import datetime
from uuid import UUID

from okane.dispute import DisputeStatus
from okane.http.connection import HttpResponse
from okane.providers.answer_text import json_object, printable
from okane.providers.base import NotFound, ReportedDispute, Unavailable, Unknown
from okane.providers.okane_http.answer_parser import not_taken, time_of, unexpected

_CURRENCY = re.compile("[A-Z]{3}")
_MAX_REASON = 100


def parse_dispute(
    answer: HttpResponse, ref: str, *, now: datetime
) -> ReportedDispute | NotFound | Unavailable | Unknown:
    """Return the dispute of this reference. Only a 404 of the contract is `NotFound`."""
    document = json_object(answer.body)
    if answer.status == 404 and document is not None and document.get("code") == "dispute_not_found":
        return NotFound()
    if answer.status != 200 or document is None:
        return not_taken(answer, document, now=now) or Unknown(unexpected(answer.status, document))
    amount, currency, reason = document.get("amount"), document.get("currency"), document.get("reason")
    if document.get("dispute") != ref or type(amount) is not int or not 0 < amount < 2**63:
        return Unknown("a dispute of another name, or without a usable amount")
    if not isinstance(currency, str) or not _CURRENCY.fullmatch(currency):
        return Unknown("a dispute without a usable currency")
    try:
        status, payment_id = DisputeStatus(str(document.get("status"))), UUID(str(document.get("payment_id")))
    except ValueError:
        return Unknown("a dispute without a usable status or payment")
    return ReportedDispute(
        provider_ref=ref,
        payment_id=payment_id,
        amount_minor=amount,
        currency=currency,
        status=status,
        reason=printable(reason)[:_MAX_REASON] if isinstance(reason, str) and reason else None,
        due_by=time_of(document.get("due_by")),
    )
