"""The client of a payment provider with okane's own contract: `POST /charges`, `GET /charges/{key}`, and the same for
captures, voids and refunds under `/operations`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from json.encoder import encode_basestring_ascii as quoted
from urllib.parse import quote

from okane.http.connection import HttpResponse
from okane.operation import Operation
from okane.payment import Payment
from okane.providers import capabilities as kinds
from okane.providers.base import (
    POLL_DELAYS,
    Capability,
    ChargeResult,
    LookUpResult,
    NotFound,
    OperationLookUp,
    OperationResult,
    ReportedDispute,
    Traits,
    Unavailable,
    Unknown,
)
from okane.providers.base_url import VISIBLE, parse_base_url
from okane.providers.exchange import HttpClient, HttpProvider
from okane.providers.okane_http.answer_parser import parse_charge_answer, parse_look_up_answer
from okane.providers.okane_http.disputes import parse_dispute
from okane.providers.okane_http.operation_answers import parse_operation_answer, parse_operation_look_up

_AUTOMATIC, _MANUAL = "}", ', "capture": "manual"}'


class OkaneHttpProvider(HttpProvider):
    """A `Provider` over HTTP. Created on a running loop; closed by `aclose()` or as a context manager.

    `timeout`, `connect_timeout` and `connections` are those of `HttpClient`. `more_header` returns more header lines for
    each call, with their line ends. The others are those of `Traits`.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: timedelta,
        connect_timeout: timedelta | None = None,
        connections: int = 256,
        name: str = "http",
        more_header: Callable[[], str] | None = None,
        consistency_lag: timedelta = timedelta(seconds=5),
        unknown_deadline: timedelta = timedelta(hours=24),
        poll_delays: Sequence[timedelta] = POLL_DELAYS,
        capabilities: frozenset[Capability] = kinds.ALL,
    ) -> None:
        """Raises ValueError for a `base_url` that is not an absolute http(s) URL, or a connect_timeout >= timeout."""
        url = parse_base_url(base_url)
        self._name = name
        self._traits = Traits(
            timeout=timeout,
            consistency_lag=consistency_lag,
            unknown_deadline=unknown_deadline,
            poll_delays=poll_delays,
            capabilities=capabilities,
        )
        self._more_header = more_header
        self._charges = f"{url.path}/charges"
        self._disputes = f"{url.path}/disputes"
        self._operations = f"{url.path}/operations"
        self._common = url.common_headers()
        self._post = f"POST {self._charges} HTTP/1.1\r\n{self._common}Content-Type: application/json\r\n"
        self._post_operation = f"POST {self._operations} HTTP/1.1\r\n{self._common}Content-Type: application/json\r\n"
        self._http = HttpClient(url, timeout=timeout, connect_timeout=connect_timeout, connections=connections)

    async def charge(self, payment: Payment) -> ChargeResult:
        """Send the charge once. No failure of the provider or the network raises.

        Raises ValueError for a key that does not fit into a header.
        """
        if payment.manual_capture and (refused := kinds.refused_charge(payment, self._traits.capabilities)) is not None:
            return refused
        # By hand: json.dumps spends half of its time on the types of these values.
        body = (
            f'{{"payment_id": "{payment.id}", "amount": {payment.amount_minor:d}, "currency": {quoted(payment.currency)}'
            f"{_MANUAL if payment.manual_capture else _AUTOMATIC}"
        )
        answer = await self._http.call(self._request(self._post, payment.provider_key, body), repeatable=False)
        return (
            parse_charge_answer(answer, payment, now=datetime.now(UTC)) if isinstance(answer, HttpResponse) else answer
        )

    async def look_up(self, payment: Payment, *, may_execute: bool = False) -> LookUpResult:
        """Look up the charge under the payment's key. No failure of the provider or the network raises."""
        answer = await self._get(f"{self._charges}/{quote(payment.provider_key, safe='')}")
        return (
            parse_look_up_answer(answer, payment, now=datetime.now(UTC)) if isinstance(answer, HttpResponse) else answer
        )

    async def operate(self, operation: Operation, payment: Payment) -> OperationResult:
        """Send the operation once. No failure of the provider or the network raises.

        Raises ValueError for a key that does not fit into a header.
        """
        if (refused := kinds.refused_operation(operation, payment, self._traits.capabilities)) is not None:
            return refused
        body = (
            f'{{"kind": "{operation.kind}", "charge": {quoted(payment.provider_key)}, "operation_id": "{operation.id}"'
            f', "payment_id": "{payment.id}", "amount": {operation.amount_minor:d}'
            f', "currency": {quoted(operation.currency)}}}'
        )
        request = self._request(self._post_operation, operation.provider_key, body)
        answer = await self._http.call(request, repeatable=False)
        if not isinstance(answer, HttpResponse):
            return answer
        return parse_operation_answer(answer, operation, now=datetime.now(UTC))

    async def look_up_operation(
        self, operation: Operation, payment: Payment, *, may_execute: bool = False
    ) -> OperationLookUp:
        """Look up the operation under its key. No failure of the provider or the network raises."""
        answer = await self._get(f"{self._operations}/{quote(operation.provider_key, safe='')}")
        if not isinstance(answer, HttpResponse):
            return answer
        return parse_operation_look_up(answer, operation, now=datetime.now(UTC))

    async def fetch_dispute(self, ref: str) -> ReportedDispute | NotFound | Unavailable | Unknown:
        """Return a dispute as it is now. No failure of the provider or the network raises."""
        answer = await self._get(f"{self._disputes}/{quote(ref, safe='')}")
        return parse_dispute(answer, ref, now=datetime.now(UTC)) if isinstance(answer, HttpResponse) else answer

    async def _get(self, path: str) -> HttpResponse | Unavailable | Unknown:
        more = "" if self._more_header is None else self._more_header()
        request = f"GET {path} HTTP/1.1\r\n{self._common}{more}\r\n"
        return await self._http.call(request.encode("ascii"), repeatable=True)

    def _request(self, head: str, key: str, body: str) -> bytes:
        if not VISIBLE.fullmatch(key):
            raise ValueError(f"a provider key must be visible ASCII, not {key!r}")
        more = "" if self._more_header is None else self._more_header()
        return f"{head}Idempotency-Key: {key}\r\n{more}Content-Length: {len(body)}\r\n\r\n{body}".encode("ascii")
