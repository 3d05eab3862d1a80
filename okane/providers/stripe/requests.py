"""The requests to Stripe, as bytes. Pure.

Guarantee: the charge of a payment under one key is the same request each time, byte for byte, whatever has happened to the
row meanwhile. Stripe refuses a key that comes with other parameters.
"""

from __future__ import annotations

import re
from datetime import datetime
from urllib.parse import quote

from okane.operation import Operation, OperationKind
from okane.payment import Payment
from okane.providers.base_url import BaseUrl

API_VERSION = "2026-08-26.dahlia"
PAGE_SIZE = 100  # Stripe's largest

_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]+")
# Without a customer who can act: no page of another site, and a decline where a bank wants 3-D Secure.
_OFF_SESSION = "&automatic_payment_methods[allow_redirects]=never&off_session=true"


class StripeRequests:
    """The requests to one base URL. Those of look-ups are heads that still lack their Authorization and their end."""

    def __init__(self, base_url: BaseUrl) -> None:
        self._intents = f"{base_url.path}/v1/payment_intents"
        self._refunds = f"{base_url.path}/v1/refunds"
        self._disputes = f"{base_url.path}/v1/disputes"
        self._common = f"{base_url.common_headers()}Stripe-Version: {API_VERSION}\r\n"
        self._form = f" HTTP/1.1\r\n{self._common}Content-Type: application/x-www-form-urlencoded\r\n"
        self._post = f"POST {self._intents}{self._form}"

    def charge(self, payment: Payment, *, amount: int, payment_method: str, authorization: str) -> bytes:
        """Return the POST that makes and confirms a PaymentIntent. `amount` is in Stripe's units, and `authorization` a
        header line with its line end."""
        body = charge_form(payment, amount=amount, payment_method=payment_method)
        head = f"{self._post}{authorization}Idempotency-Key: {payment.provider_key}\r\nContent-Length: {len(body)}"
        return f"{head}\r\n\r\n{body}".encode("ascii")

    def operation(self, operation: Operation, ref: str, *, key: str, amount: int, authorization: str) -> bytes:
        """Return the POST that captures, cancels or refunds the PaymentIntent `ref` under `key`. `amount` is in Stripe's
        units."""
        if operation.kind is OperationKind.CAPTURE:
            path, body = f"{self._intents}/{_quoted(ref)}/capture", f"amount_to_capture={amount:d}"
        elif operation.kind is OperationKind.VOID:
            path, body = f"{self._intents}/{_quoted(ref)}/cancel", ""
        else:
            path = self._refunds
            body = (
                f"payment_intent={_quoted(ref)}&amount={amount:d}"
                f"&metadata[payment_id]={operation.payment_id}&metadata[operation_id]={operation.id}"
                f"&metadata[operation_key]={_quoted(operation.provider_key)}"
            )
        head = f"POST {path}{self._form}{authorization}Idempotency-Key: {key}\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode("ascii")

    def cancel(self, ref: str, *, authorization: str) -> bytes:
        """Return the POST that cancels the PaymentIntent `ref`. It has no key: a repeat changes nothing, and under a key
        Stripe would repeat a saved failure."""
        head = f"POST {self._intents}/{_quoted(ref)}/cancel{self._form}{authorization}"
        return f"{head}Content-Length: 0\r\n\r\n".encode("ascii")

    def retrieve(self, ref: str, *, with_charge: bool = False) -> str:
        """Return the GET of a PaymentIntent, for the end of an authorization with its charge."""
        return self._get(f"/{_quoted(ref)}{'?expand[]=latest_charge' if with_charge else ''}")

    def retrieve_refund(self, ref: str) -> str:
        """Return the GET of a refund."""
        return f"GET {self._refunds}/{_quoted(ref)} HTTP/1.1\r\n{self._common}"

    def list_refunds(self, ref: str, *, after: str | None) -> str:
        """Return the GET of a page of the refunds of the PaymentIntent `ref`, from the one `after` on."""
        cursor = "" if after is None else f"&starting_after={_quoted(after)}"
        return f"GET {self._refunds}?payment_intent={_quoted(ref)}&limit={PAGE_SIZE}{cursor} HTTP/1.1\r\n{self._common}"

    def list_since(self, since: datetime, *, after: str | None) -> str:
        """Return the GET of a page of the PaymentIntents made since then, newest first, from the one `after` on.

        There is no upper bound: the newest may be ours, and the cursor keeps later pages in place.
        """
        cursor = "" if after is None else f"&starting_after={_quoted(after)}"
        return self._get(f"?created[gte]={int(since.timestamp())}&limit={PAGE_SIZE}{cursor}")

    def search(self, payment: Payment) -> str:
        """Return the GET of a search for the PaymentIntents of a payment."""
        query = quote(f"metadata['payment_id']:'{payment.id}'", safe="")
        return self._get(f"/search?query={query}&limit={PAGE_SIZE}")

    def dispute(self, ref: str) -> str:
        """Return the GET of a dispute, with the PaymentIntent that names the payment."""
        return f"GET {self._disputes}/{_quoted(ref)}?expand[]=payment_intent HTTP/1.1\r\n{self._common}"

    def _get(self, rest: str) -> str:
        return f"GET {self._intents}{rest} HTTP/1.1\r\n{self._common}"


def _quoted(text: str) -> str:
    return text if _UNRESERVED.fullmatch(text) else quote(text, safe="")


def _method(payment_method: str) -> str:
    """Return the parameters of a payment method. Stripe charges one that is attached to a customer for that customer only:
    `cus_…/pm_…` names both."""
    customer, slash, method = payment_method.partition("/")
    if not slash or not customer.startswith("cus_"):
        return f"&payment_method={_quoted(payment_method)}"
    return f"&customer={_quoted(customer)}&payment_method={_quoted(method)}"


def charge_form(payment: Payment, *, amount: int, payment_method: str) -> str:
    """Return the body of a charge: every value is fixed with the payment and its key."""
    # capture_method: Stripe's default reports success before the funds are captured.
    capture = "manual&expand[]=latest_charge" if payment.manual_capture else "automatic"
    session = _OFF_SESSION if payment.return_url is None else f"&return_url={_quoted(payment.return_url)}"
    return (
        f"amount={amount:d}&currency={payment.currency.lower()}&confirm=true&capture_method={capture}"
        f"{_method(payment_method)}&automatic_payment_methods[enabled]=true{session}"
        f"&metadata[payment_id]={payment.id}&metadata[attempt_key]={_quoted(payment.provider_key)}"
    )
