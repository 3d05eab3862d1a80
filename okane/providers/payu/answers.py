"""Pure functions from PayU's HTTP answers to the results of a charge and of a look-up.

Guarantee: only an unambiguous answer becomes `Pending`, `Approved`, `Authorized`, `Declined` or `Unavailable`. Any other may
have made an order and is `Unknown`; a 5xx always. `NotFound` is never returned: PayU has no look-up by `extOrderId`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from okane.http.connection import HttpResponse
from okane.payment import NextAction, Payment
from okane.providers.answer_text import is_page_url, json_object, printable
from okane.providers.base import Approved, Authorized, ChargeResult, Declined, Pending, Unavailable, Unknown
from okane.providers.retry_after import retry_after

# `status.statusCode` of an order that was made. PayU answers 302 with the page for the customer in the body, and 200 or 201
# where there may be none.
_MADE = frozenset({"SUCCESS", "WARNING_CONTINUE_REDIRECT", "WARNING_CONTINUE_3DS", "WARNING_CONTINUE_CVV"})
_ORDER_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,63}", re.ASCII)
_TOKEN = re.compile(r"[!-~]{1,2048}")
# The lifetime that counts where the answer has none, or one that is no number of seconds.
_SHORT_LIFETIME_S = 300.0
_LONG_LIFETIME_S = 86_400.0

# The states of an order in which the customer may still have to open the page.
_WITH_CUSTOMER = frozenset({"NEW", "PENDING"})


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token of PayU's OAuth, and for how long it is valid from its request on."""

    value: str = field(repr=False)
    lifetime_s: float


def parse_charge_answer(answer: HttpResponse, payment: Payment, *, is_repeat: bool, now: datetime) -> ChargeResult:
    """Return the result in an answer to `POST /orders`.

    Where the request repeats one that may have made an order, no answer declines: PayU may find a card expired that was
    charged a day ago.
    """
    document = json_object(answer.body)
    if answer.status in (200, 201, 302) and document is not None and code_of(document) in _MADE:
        return _made(answer.status, document, payment)
    if _is_not_unique(answer, document):
        # Look-ups repeat this until the notice comes: it must not open the circuit breaker.
        return Unknown("PayU has an order with this extOrderId: its id comes with the notice", is_neutral=True)
    if not is_repeat and (declined := _refused_card(answer, document)) is not None:
        return declined
    return not_taken(answer, document, now=now) or undecided(answer, document)


def existing_order(answer: HttpResponse) -> str | None:
    """Return the order that the answer to a repeat names as the one that exists already, or None.

    PayU does not document the member: the caller must look the order up, and compare its `extOrderId`.
    """
    document = json_object(answer.body)
    if document is None or not _is_not_unique(answer, document):
        return None
    return usable_id(document.get("orderId"))


def parse_look_up_answer(answer: HttpResponse, payment: Payment, order_id: str, *, now: datetime) -> ChargeResult:
    """Return the result in an answer to `GET /orders/{order_id}`.

    `Unavailable` means that the look-up was not taken; the charge stays open.
    """
    document = json_object(answer.body)
    if answer.status != 200:
        return not_taken(answer, document, now=now) or undecided(answer, document)
    if document is None or code_of(document) != "SUCCESS" or (order := only_order(document)) is None:
        return Unknown("unreadable 200 to a look-up")
    if order.get("orderId") != order_id:
        return Unknown("PayU answered for another order")
    return mismatch(order, payment) or _looked_up(order, payment, order_id)


def parse_token_answer(answer: HttpResponse, *, now: datetime) -> AccessToken | Unavailable:
    """Return the token in an answer of PayU's OAuth. Without one no order is sent: every failure is Unavailable.

    Nothing of the body reaches a reason: it may repeat the secret of the request.
    """
    document = json_object(answer.body) or {}
    token = document.get("access_token")
    if answer.status == 200 and isinstance(token, str) and _TOKEN.fullmatch(token):
        return AccessToken(token, _lifetime_s(document.get("expires_in")))
    reason = f"no access token: HTTP {answer.status}"
    if answer.status in (400, 401, 403):
        return Unavailable(reason, fault="config")
    if answer.status == 429:
        return Unavailable(reason, retry_after(answer, now=now), fault="limit")
    return Unavailable(reason)


def _made(status: int, document: Mapping[str, object], payment: Payment) -> Pending | Unknown:
    order_id = usable_id(document.get("orderId"))
    if order_id is None:
        return Unknown(f"{status} without a usable orderId")
    if document.get("extOrderId") not in (None, payment.provider_key):
        return Unknown(f"{status} for another extOrderId")
    url = document.get("redirectUri")
    # Without a page the customer cannot pay, and PayU cancels the order at the end of its validity.
    return Pending(order_id, NextAction(url) if isinstance(url, str) and is_page_url(url) else None)


def _looked_up(order: Mapping[str, object], payment: Payment, order_id: str) -> ChargeResult:
    status = order.get("status")
    if status == "COMPLETED":
        return Approved(order_id)
    if status == "CANCELED":
        return Declined("canceled", provider_ref=order_id)
    # The answer does not repeat the page: it stays the one of the first answer.
    if status in _WITH_CUSTOMER:
        return Pending(order_id, payment.next_action)
    if status == "WAITING_FOR_CONFIRMATION":
        # PayU cancels it at some time that it does not tell.
        return Authorized(order_id) if payment.manual_capture else Pending(order_id)
    return Unknown(f"order with status {printable(status)!r}")


def mismatch(order: Mapping[str, object], payment: Payment) -> Unknown | None:
    """Return Unknown for an order of another key, amount or currency: a human decides that."""
    if order.get("extOrderId") != payment.provider_key:
        return Unknown("the order has another extOrderId", at_once=isinstance(order.get("extOrderId"), str))
    amount, currency = order.get("totalAmount"), order.get("currencyCode")
    if not isinstance(amount, str) or not isinstance(currency, str):
        return Unknown("order without a readable amount and currency")
    if amount == str(payment.amount_minor) and currency == payment.currency:
        return None
    told = f"{printable(amount)} {printable(currency)}"
    return Unknown(f"PayU answered for {told}, not {payment.amount_minor} {payment.currency}"[:255], at_once=True)


def _refused_card(answer: HttpResponse, document: Mapping[str, object] | None) -> Declined | None:
    """Return the decline in a 400 that PayU documents for the card or the customer instead of the request."""
    if answer.status != 400 or document is None:
        return None
    if status_of(document).get("codeLiteral") == "CARD_CARD_EXPIRED":
        return Declined("expired_card", "PayU: CARD_CARD_EXPIRED")
    if code_of(document) == "BUSINESS_ERROR" and "antifraud" in str(status_of(document).get("statusDesc")):
        return Declined("fraudulent", "PayU: rejected by its antifraud system")
    return None


def _is_not_unique(answer: HttpResponse, document: Mapping[str, object] | None) -> bool:
    return answer.status == 400 and document is not None and code_of(document) == "ERROR_ORDER_NOT_UNIQUE"


def not_taken(answer: HttpResponse, document: Mapping[str, object] | None, *, now: datetime) -> Unavailable | None:
    """Return Unavailable for a 401, a 403 and a 429: PayU did nothing.

    A 401 or 403 without JSON comes from something before PayU, about which nothing is known.
    """
    if answer.status == 429:
        return Unavailable("HTTP 429", retry_after(answer, now=now), fault="limit")
    if answer.status in (401, 403) and document is not None:
        return Unavailable(unexpected(answer.status, document), fault="config")
    return None


def undecided(answer: HttpResponse, document: Mapping[str, object] | None) -> Unknown:
    """Return Unknown for an answer that proves nothing. A 400 or 404 with PayU's code says that PayU works: payments that
    it does not take must not open the circuit breaker for the others."""
    is_payus = answer.status in (400, 404) and document is not None and code_of(document) is not None
    return Unknown(unexpected(answer.status, document), is_neutral=is_payus)


def only_order(document: Mapping[str, object]) -> Mapping[str, object] | None:
    """Return the order in an answer to the GET of one."""
    match document.get("orders"):
        case [dict() as order]:
            return order
    return None


def status_of(document: Mapping[str, object]) -> Mapping[str, object]:
    """Return the status in an answer, which is that of the request."""
    status = document.get("status")
    return status if isinstance(status, dict) else {}


def code_of(document: Mapping[str, object]) -> str | None:
    """Return PayU's code for the request."""
    code = status_of(document).get("statusCode")
    return code if isinstance(code, str) else None


def unexpected(status: int, document: Mapping[str, object] | None) -> str:
    """Return the HTTP status with PayU's codes for it. Its other texts may repeat what was sent."""
    codes = [status_of(document or {}).get(name) for name in ("statusCode", "codeLiteral")]
    return " ".join([f"HTTP {status}", *(code for code in codes if isinstance(code, str) and _CODE.fullmatch(code))])


def usable_id(value: object) -> str | None:
    """Return an id of PayU's that fits into a row and a path, or None."""
    return value if isinstance(value, str) and _ORDER_ID.fullmatch(value) else None


def _lifetime_s(value: object) -> float:
    if type(value) is not int or value <= 0:
        return _SHORT_LIFETIME_S
    return min(float(value), _LONG_LIFETIME_S)
