"""Stripe's answers, in the shape of its API: for a canned server, and for the pure parsers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from okane.http.connection import HttpResponse
from tests.payments import PAYMENT

CARD_PAYMENT = replace(PAYMENT, payment_method="pm_card_visa")
OURS = {"payment_id": str(PAYMENT.id), "attempt_key": PAYMENT.provider_key}
CARD_ERROR = {"type": "card_error", "code": "card_declined", "message": "Your card was declined."}


def intent(**changes: object) -> dict[str, object]:
    """Return a PaymentIntent that has succeeded, with these changes."""
    return {
        "id": "pi_1",
        "object": "payment_intent",
        "amount": 440,
        "amount_received": 440,
        "capture_method": "automatic",
        "client_secret": "pi_1_secret_x",
        "created": 1767225600,
        "currency": "usd",
        "last_payment_error": None,
        "latest_charge": "ch_1",
        "livemode": False,
        "metadata": OURS,
        "next_action": None,
        "payment_method": "pm_1",
        "status": "succeeded",
    } | changes


def unpaid(status: str, **changes: object) -> dict[str, object]:
    """Return a PaymentIntent in a state without money."""
    return intent(status=status, amount_received=0, **changes)


def failed(**changes: object) -> dict[str, object]:
    """Return the body of an error."""
    return {"error": {"type": "invalid_request_error", "message": "No."} | changes}


def listed(*intents: object, has_more: bool = False) -> dict[str, object]:
    """Return a page of a list."""
    return {"object": "list", "url": "/v1/payment_intents", "has_more": has_more, "data": list(intents)}


def response(
    status: int, document: object = None, *, retry_after: str | None = None, headers: Mapping[str, str] | None = None
) -> HttpResponse:
    """Return an answer with a JSON body."""
    return HttpResponse(status, encoded(document), retry_after, None, dict(headers or {}))


def encoded(document: object) -> bytes:
    """Return the body of a document; bytes are a body already."""
    return document if isinstance(document, bytes) else json.dumps(document).encode()
