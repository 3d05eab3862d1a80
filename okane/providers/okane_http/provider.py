"""The client of a payment provider with okane's own contract: `POST /charges`, `GET /charges/{key}`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from json.encoder import encode_basestring_ascii as quoted
from urllib.parse import quote

from okane.http.connection import HttpResponse
from okane.payment import Payment
from okane.providers.base import ChargeResult, LookUpResult, Traits
from okane.providers.base_url import VISIBLE, parse_base_url
from okane.providers.exchange import HttpClient, HttpProvider
from okane.providers.okane_http.answer_parser import parse_charge_answer, parse_look_up_answer


class OkaneHttpProvider(HttpProvider):
    """A `Provider` over HTTP. Created on a running loop; closed by `aclose()` or as a context manager.

    `timeout`, `connect_timeout` and `connections` are those of `HttpClient`. `more_header` returns more header lines for
    each call, with their line ends. `consistency_lag` and `unknown_deadline` are those of `Traits`.
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
    ) -> None:
        """Raises ValueError for a `base_url` that is not an absolute http(s) URL, or a connect_timeout >= timeout."""
        url = parse_base_url(base_url)
        self._name = name
        self._traits = Traits(timeout=timeout, consistency_lag=consistency_lag, unknown_deadline=unknown_deadline)
        self._more_header = more_header
        self._charges = f"{url.path}/charges"
        self._common = url.common_headers()
        self._post = f"POST {self._charges} HTTP/1.1\r\n{self._common}Content-Type: application/json\r\n"
        self._http = HttpClient(url, timeout=timeout, connect_timeout=connect_timeout, connections=connections)

    async def charge(self, payment: Payment) -> ChargeResult:
        """Send the charge once. No failure of the provider or the network raises.

        Raises ValueError for a key that does not fit into a header.
        """
        key = payment.provider_key
        if not VISIBLE.fullmatch(key):
            raise ValueError(f"a provider key must be visible ASCII, not {key!r}")
        # By hand: json.dumps spends half of its time on the types of these values.
        body = f'{{"payment_id": "{payment.id}", "amount": {payment.amount_minor:d}, "currency": {quoted(payment.currency)}}}'
        more = "" if self._more_header is None else self._more_header()
        request = f"{self._post}Idempotency-Key: {key}\r\n{more}Content-Length: {len(body)}\r\n\r\n{body}"
        answer = await self._http.call(request.encode("ascii"), repeatable=False)
        return (
            parse_charge_answer(answer, payment, now=datetime.now(UTC)) if isinstance(answer, HttpResponse) else answer
        )

    async def look_up(self, payment: Payment, *, may_execute: bool = False) -> LookUpResult:
        """Look up the charge under the payment's key. No failure of the provider or the network raises."""
        more = "" if self._more_header is None else self._more_header()
        request = f"GET {self._charges}/{quote(payment.provider_key, safe='')} HTTP/1.1\r\n{self._common}{more}\r\n"
        answer = await self._http.call(request.encode("ascii"), repeatable=True)
        return (
            parse_look_up_answer(answer, payment, now=datetime.now(UTC)) if isinstance(answer, HttpResponse) else answer
        )
