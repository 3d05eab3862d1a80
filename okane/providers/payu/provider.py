"""The adapter of PayU's REST API 2.1: `POST /orders`, `GET /orders/{id}`, with OAuth tokens and no idempotency key.

Guarantee: one payment never makes two orders, because its provider key is the `extOrderId`, which PayU takes once. A call is
`Unavailable` only if PayU did nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from okane.http.connection import HttpResponse
from okane.operation import Operation, OperationKind
from okane.payment import Payment
from okane.providers import capabilities as kinds
from okane.providers.base import (
    POLL_DELAYS,
    ChargeResult,
    Declined,
    LookUpResult,
    NotFound,
    OperationLookUp,
    OperationResult,
    Pending,
    Traits,
    Unavailable,
    Unknown,
)
from okane.providers.base_url import parse_base_url
from okane.providers.exchange import HttpClient, HttpProvider
from okane.providers.payu.access_token import AccessTokenSource
from okane.providers.payu.answers import (
    AccessToken,
    existing_order,
    parse_charge_answer,
    parse_look_up_answer,
    parse_token_answer,
)
from okane.providers.payu.operation_answers import (
    parse_order_change,
    parse_order_state,
    parse_refund_answer,
    parse_refund_list,
)
from okane.providers.payu.requests import Shop, order_body, refund_body, refused_before_call, token_body

PRODUCTION = "https://secure.payu.com"
# PayU keeps connections for longer, and a TLS handshake for each payment is expensive.
_IDLE_LIMIT_S = 30.0
_NO_REFERENCE = Unknown("the payment has no order", at_once=True, is_neutral=True)


class PayuProvider(HttpProvider):
    """A `Provider` that makes PayU orders. Created on a running loop; closed by `aclose()` or as a context manager.

    `client_secret` is called for each fetch of an access token, so that a changed secret takes effect by itself. The
    customer of an order has `validity` to pay (half of `unknown_deadline`); then PayU cancels it. An order whose answer was
    lost is found by its notice to `notify_url`, at the latest that of its cancellation; without notices it needs a review.
    Without `automatic_collection` (a setting at PayU) paid orders wait to be captured: such a shop takes only payments with a
    capture of their own. `timeout`, `connect_timeout` and `connections` are those of `HttpClient`; one `timeout` covers a
    call with its token.
    """

    def __init__(
        self,
        *,
        pos_id: str,
        client_id: str,
        client_secret: Callable[[], str],
        notify_url: str | None = None,
        base_url: str = PRODUCTION,
        name: str = "payu",
        customer_ip: str = "127.0.0.1",
        validity: timedelta | None = None,
        timeout: timedelta = timedelta(seconds=30),
        connect_timeout: timedelta | None = None,
        connections: int = 64,
        consistency_lag: timedelta = timedelta(seconds=60),
        unknown_deadline: timedelta = timedelta(hours=24),
        poll_delays: Sequence[timedelta] = POLL_DELAYS,
        automatic_collection: bool = True,
    ) -> None:
        """Raises ValueError for a setting that PayU or okane cannot use. Its text holds no secret."""
        if validity is None:
            validity = unknown_deadline / 2
        if not validity < unknown_deadline:
            raise ValueError(
                f"the validity of PayU's orders ({validity}) must be below unknown_deadline ({unknown_deadline})"
            )
        url = parse_base_url(base_url)
        if url.authorization is not None:
            raise ValueError("PayU's base URL must have no user and password")
        self._name = name
        self._traits = Traits(
            timeout=timeout,
            consistency_lag=consistency_lag,
            unknown_deadline=unknown_deadline,
            poll_delays=poll_delays,
            capabilities=kinds.PAYU if automatic_collection else kinds.PAYU_BY_HAND,
        )
        self._automatic_collection = automatic_collection
        self._shop = Shop(pos_id=pos_id, notify_url=notify_url, customer_ip=customer_ip, validity=validity)
        self._client_id = client_id
        self._client_secret = client_secret
        self._common = url.common_headers()
        self._orders = f"{url.path}/api/v2_1/orders"
        self._oauth = f"{url.path}/pl/standard/user/oauth/authorize"
        self._loop = asyncio.get_running_loop()
        self._timeout_s = timeout.total_seconds()
        self._http = HttpClient(
            url,
            timeout=timeout,
            connect_timeout=connect_timeout,
            connections=connections,
            idle_limit_s=_IDLE_LIMIT_S,
        )
        self._tokens = AccessTokenSource(self._fetch_token)

    async def charge(self, payment: Payment) -> ChargeResult:
        """Make the order. No failure of PayU or the network raises."""
        if (declined := self._refused(payment)) is not None:
            return declined
        answer = await self._post_order(payment, self._loop.time() + self._timeout_s)
        if not isinstance(answer, HttpResponse):
            return answer
        return parse_charge_answer(answer, payment, is_repeat=False, now=datetime.now(UTC))

    async def look_up(self, payment: Payment, *, may_execute: bool) -> LookUpResult:
        """Look up the order of the payment's key. No failure of PayU or the network raises.

        PayU finds an order by its own id only. Without that id the order is made again if it may be: PayU refuses the
        repeat if there is one, and makes the first if there is none.
        """
        due_s = self._loop.time() + self._timeout_s
        order_id = payment.provider_ref or payment.attempt_ref
        if order_id is not None:
            return await self._get_order(payment, order_id, due_s)
        if not may_execute:
            return Unknown("the order's id is not known yet", is_neutral=True)
        if isinstance(refused := self._refused(payment), Declined):
            return Unknown(f"cannot be repeated: {refused.code}", is_neutral=True)
        answer = await self._post_order(payment, due_s)
        if not isinstance(answer, HttpResponse):
            return answer
        if (existing := existing_order(answer)) is not None:
            return await self._get_order(payment, existing, due_s)
        return parse_charge_answer(answer, payment, is_repeat=True, now=datetime.now(UTC))

    async def operate(self, operation: Operation, payment: Payment) -> OperationResult:
        """Capture or cancel the order, or refund it. No failure of PayU or the network raises."""
        if (refused := kinds.refused_operation(operation, payment, self._traits.capabilities)) is not None:
            return refused
        if operation.kind is OperationKind.CAPTURE and operation.amount_minor != payment.amount_minor:
            return Declined("invalid_amount", "PayU captures an order as a whole")
        if (order_id := payment.provider_ref or payment.attempt_ref) is None:
            return _NO_REFERENCE
        due_s, path = self._loop.time() + self._timeout_s, f"{self._orders}/{quote(order_id, safe='')}"
        if operation.kind is OperationKind.REFUND:
            return await self._refund(operation, order_id, due_s)
        request = f"POST {path}/captures" if operation.kind is OperationKind.CAPTURE else f"DELETE {path}"
        answer = await self._send_json(request, "", due_s)
        if not isinstance(answer, HttpResponse):
            return answer
        changed = parse_order_change(answer, operation, order_id, now=datetime.now(UTC))
        if not isinstance(changed, Pending | Declined):
            return changed
        # The order tells what has become of it, whatever PayU answered to this request.
        state = await self._order_state(operation, payment, order_id, due_s)
        if isinstance(state, NotFound | Unavailable):
            return changed if isinstance(state, NotFound) or isinstance(changed, Pending) else Unknown(state.reason)
        return state

    async def look_up_operation(self, operation: Operation, payment: Payment, *, may_execute: bool) -> OperationLookUp:
        """Look a capture or void up by its order, and a refund in the order's list of refunds.

        It never executes anything. No failure of PayU or the network raises.
        """
        if (order_id := payment.provider_ref or payment.attempt_ref) is None:
            return _NO_REFERENCE
        due_s = self._loop.time() + self._timeout_s
        if operation.kind is not OperationKind.REFUND:
            return await self._order_state(operation, payment, order_id, due_s)
        return await self._find_refund(operation, order_id, due_s)

    async def aclose(self) -> None:
        """Close every connection. Calls still in flight end as `Unknown`, or `Unavailable` if they were not sent."""
        await self._tokens.aclose()
        await super().aclose()

    async def _post_order(self, payment: Payment, due_s: float) -> HttpResponse | Unavailable | Unknown:
        return await self._send_json(f"POST {self._orders}", order_body(payment, self._shop), due_s)

    async def _refund(self, operation: Operation, order_id: str, due_s: float) -> OperationResult:
        request = f"POST {self._orders}/{quote(order_id, safe='')}/refunds"
        answer = await self._send_json(request, refund_body(operation), due_s)
        if not isinstance(answer, HttpResponse):
            return answer
        made = parse_refund_answer(answer, operation, now=datetime.now(UTC))
        if not isinstance(made, Declined):
            return made
        # A repeat may be refused because the first one has been executed: the order's list tells.
        found = await self._find_refund(operation, order_id, due_s)
        if isinstance(found, NotFound):
            return made
        return Unknown(f"declined, and not looked up: {found.reason}") if isinstance(found, Unavailable) else found

    async def _find_refund(self, operation: Operation, order_id: str, due_s: float) -> OperationLookUp:
        head = f"GET {self._orders}/{quote(order_id, safe='')}/refunds HTTP/1.1\r\n{self._common}"
        answer = await self._call(head, "\r\n", due_s, repeatable=True)
        if not isinstance(answer, HttpResponse):
            return answer
        return parse_refund_list(answer, operation, now=datetime.now(UTC))

    async def _send_json(self, request: str, body: str, due_s: float) -> HttpResponse | Unavailable | Unknown:
        head = f"{request} HTTP/1.1\r\n{self._common}Content-Type: application/json\r\n"
        return await self._call(head, f"Content-Length: {len(body)}\r\n\r\n{body}", due_s, repeatable=False)

    async def _order_state(
        self, operation: Operation, payment: Payment, order_id: str, due_s: float
    ) -> OperationLookUp:
        head = f"GET {self._orders}/{quote(order_id, safe='')} HTTP/1.1\r\n{self._common}"
        answer = await self._call(head, "\r\n", due_s, repeatable=True)
        if not isinstance(answer, HttpResponse):
            return answer
        return parse_order_state(answer, operation, payment, order_id, now=datetime.now(UTC))

    def _refused(self, payment: Payment) -> Declined | None:
        """Return the decline of a payment that PayU cannot take. Nothing is sent for it."""
        if not payment.manual_capture and not self._automatic_collection:
            return Declined("unsupported_operation", "automatic collection is off at PayU: only manual captures")
        refused = kinds.refused_charge(payment, self._traits.capabilities) if payment.manual_capture else None
        return refused or refused_before_call(payment)

    async def _get_order(self, payment: Payment, order_id: str, due_s: float) -> ChargeResult:
        head = f"GET {self._orders}/{quote(order_id, safe='')} HTTP/1.1\r\n{self._common}"
        answer = await self._call(head, "\r\n", due_s, repeatable=True)
        if not isinstance(answer, HttpResponse):
            return answer
        return parse_look_up_answer(answer, payment, order_id, now=datetime.now(UTC))

    async def _call(
        self, head: str, rest: str, due_s: float, *, repeatable: bool
    ) -> HttpResponse | Unavailable | Unknown:
        """Send a request with an access token, and once more with a new one if PayU refuses the first."""
        token = await self._tokens.get(due_s=due_s)
        if isinstance(token, Unavailable):
            return token
        answer = await self._send(head, token, rest, due_s, repeatable=repeatable)
        if not isinstance(answer, HttpResponse) or answer.status != 401:
            return answer
        # PayU reads the token before the order, so that nothing was done under the refused one.
        token = await self._tokens.replace(token, due_s=due_s)
        if isinstance(token, Unavailable):
            return token
        return await self._send(head, token, rest, due_s, repeatable=repeatable)

    async def _send(
        self, head: str, token: str, rest: str, due_s: float, *, repeatable: bool
    ) -> HttpResponse | Unavailable | Unknown:
        request = f"{head}Authorization: Bearer {token}\r\n{rest}"
        return await self._http.call(request.encode("ascii"), repeatable=repeatable, due_s=due_s)

    async def _fetch_token(self) -> AccessToken | Unavailable:
        try:
            body = token_body(self._client_id, self._client_secret())
        except Exception as error:  # the text may hold the secret
            return Unavailable(
                f"no access token: the client secret cannot be read: {type(error).__name__}", fault="config"
            )
        request = (
            f"POST {self._oauth} HTTP/1.1\r\n{self._common}Content-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )
        # A token moves no money: it can be fetched twice.
        answer = await self._http.call(request.encode("ascii"), repeatable=True)
        if isinstance(answer, HttpResponse):
            return parse_token_answer(answer, now=datetime.now(UTC))
        return Unavailable(f"no access token: {answer.reason}"[:255])
