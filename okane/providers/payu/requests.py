"""The bodies of the requests to PayU's REST API 2.1, and the payments that PayU cannot take. Pure.

One payment always gives the same order but for the settings of its shop, and its `extOrderId` is the provider key. PayU
takes an `extOrderId` once, for ever: a repeat can never make a second order.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address
from json.encoder import encode_basestring_ascii as quoted
from urllib.parse import quote_plus, urlencode

from okane.currencies import NEW_PAYMENTS
from okane.operation import Operation
from okane.payment import Payment
from okane.providers.base import Declined

# The member of a payment's metadata with the address of the customer, which PayU requires.
CUSTOMER_IP = "customer_ip"

# PayU's tokens of saved cards: TOK_ for one payment, TOKC_ for many.
_CARD_TOKEN = re.compile(r"TOKC?_\w{1,128}", re.ASCII)
# PayU's short names of the other ways to pay: "blik", "m" (mBank), "c" (its card form).
_PAY_BY_LINK = re.compile(r"[a-z][a-z0-9]{0,15}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """The settings that go into every order of one point of sale.

    PayU sends its notices to `notify_url`, and cancels an order that is not paid within `validity`. `customer_ip` stands in
    for a customer whose address is not in the payment's metadata. Raises ValueError for values that PayU refuses.
    """

    pos_id: str
    notify_url: str | None
    customer_ip: str
    validity: timedelta
    members: str = field(init=False, repr=False)  # of the JSON of every order

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9]{1,20}", self.pos_id, re.ASCII):
            raise ValueError("PayU's pos_id must be a number")
        if self.notify_url is not None and not re.fullmatch(r"https?://[!-~]{1,1000}", self.notify_url):
            raise ValueError("PayU's notify_url must look like https://host/v1/providers/NAME/webhook")
        if (address := _address(self.customer_ip)) is None:
            raise ValueError("PayU's customer_ip must be an IP address, and not 0.0.0.0")
        object.__setattr__(self, "customer_ip", address)
        if self.validity < timedelta(minutes=1):
            raise ValueError("the validity of PayU's orders must be a minute or more")
        members = {"merchantPosId": self.pos_id, "validityTime": str(int(self.validity.total_seconds()))}
        if self.notify_url is not None:
            members["notifyUrl"] = self.notify_url
        object.__setattr__(self, "members", json.dumps(members)[1:-1])


def refused_before_call(payment: Payment) -> Declined | None:
    """Return the decline of a payment that cannot be written as an order. Nothing is sent for it."""
    currency = NEW_PAYMENTS.get(payment.currency)
    # PayU counts hundredths of every currency, also of those that have none.
    if currency is None or currency.exponent != 2:
        return Declined("currency_not_supported", f"PayU takes no {payment.currency}")
    method = payment.payment_method
    if method is not None and not _CARD_TOKEN.fullmatch(method) and not _PAY_BY_LINK.fullmatch(method):
        return Declined("payment_method_invalid", "not one of PayU's card tokens (TOK_, TOKC_) or payment methods")
    return None


def order_body(payment: Payment, shop: Shop) -> str:
    """Return the JSON of `POST /api/v2_1/orders` for a payment that PayU can take, in ASCII."""
    amount = payment.amount_minor
    description = f'"Payment {payment.id}"'
    address = payment.metadata.get(CUSTOMER_IP)
    # By hand: json.dumps spends most of its time on the types of these values.
    return (
        f'{{"extOrderId": {quoted(payment.provider_key)}, {shop.members}'
        f', "customerIp": "{shop.customer_ip if address is None else _address(address) or shop.customer_ip}"'
        f', "description": {description}, "currencyCode": {quoted(payment.currency)}, "totalAmount": "{amount:d}"'
        f', "products": [{{"name": {description}, "unitPrice": "{amount:d}", "quantity": "1"}}]'
        f"{_optional_members(payment)}}}"
    )


def refund_body(operation: Operation) -> str:
    """Return the JSON of `POST /api/v2_1/orders/{id}/refunds`, in ASCII. `extRefundId` is the operation's key."""
    return (
        f'{{"refund": {{"description": "Refund {operation.id}", "amount": "{operation.amount_minor:d}"'
        f', "currencyCode": {quoted(operation.currency)}, "extRefundId": {quoted(operation.provider_key)}}}}}'
    )


def token_body(client_id: str, client_secret: str) -> str:
    """Return the form of `POST /pl/standard/user/oauth/authorize`."""
    form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": client_secret}
    return urlencode(form, quote_via=quote_plus)


def _optional_members(payment: Payment) -> str:
    members = ""
    if payment.return_url is not None:
        members = f', "continueUrl": {quoted(payment.return_url)}'
    if (method := payment.payment_method) is not None:
        kind = "CARD_TOKEN" if _CARD_TOKEN.fullmatch(method) else "PBL"
        members += f', "payMethods": {{"payMethod": {{"type": "{kind}", "value": {quoted(method)}}}}}'
        if method.startswith("TOKC_"):
            payer = "CARDHOLDER" if payment.return_url is not None else "MERCHANT"
            members += f', "cardOnFile": "STANDARD_{payer}"'
    return members


def _address(text: str) -> str | None:
    """Return an IP address in its usual form, or None for any other text and for 0.0.0.0, which PayU refuses."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # A scope (fe80::1%eth0) means nothing outside of this machine.
    return None if address.is_unspecified or "%" in str(address) else str(address)
