"""The client of Stripe: PaymentIntents that are made and confirmed in one request.

Guarantee: one charge is one POST under the payment's key. A look-up sends a POST only where `may_execute` allows it, and
says "not found" only after it has read the whole list of the time in question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from okane.http.connection import HttpResponse
from okane.operation import Operation, OperationKind
from okane.payment import Payment
from okane.providers import capabilities as kinds
from okane.providers.base import (
    POLL_DELAYS,
    Authorized,
    ChargeResult,
    Declined,
    LookUpResult,
    NotFound,
    OperationLookUp,
    OperationResult,
    Pending,
    ReportedDispute,
    Traits,
    Unavailable,
    Unknown,
)
from okane.providers.base_url import VISIBLE, parse_base_url
from okane.providers.exchange import HttpClient, HttpProvider
from okane.providers.stripe.amounts import stripe_amount
from okane.providers.stripe.answers import (
    Page,
    is_saved,
    parse_charge_answer,
    parse_page,
    parse_released,
    parse_retrieved,
    proves,
)
from okane.providers.stripe.disputes import parse_dispute
from okane.providers.stripe.operations import (
    RefundPage,
    parse_operation_answer,
    parse_operation_look_up,
    parse_refund_page,
    reference_of,
)
from okane.providers.stripe.requests import StripeRequests

# Stripe keeps a key for 24 hours. A repeat must arrive before that.
KEY_LIFETIME = timedelta(hours=23)
CONNECT_TIMEOUT = timedelta(seconds=5)
# Stripe keeps connections open for longer than the servers that the pool's own limit is for.
IDLE_LIMIT_S = 30.0
MAX_INTENT_BYTES = 256 * 1024
MAX_PAGES = 50
# Of a page: 100 intents with 50 metadata of 500 characters each.
MAX_PAGE_BYTES = 4 * 1024 * 1024
# Between our clock, the database's and Stripe's.
CLOCK_MARGIN = timedelta(minutes=5)

_HEADERS = ("Idempotent-Replayed", "Request-Id")
_NO_KEY = Unavailable("no usable API key", fault="config")
_NO_REFERENCE = Unknown("the payment has no PaymentIntent", at_once=True, is_neutral=True)


class StripeProvider(HttpProvider):
    """A `Provider` at Stripe. Created on a running loop; closed by `aclose()` or as a context manager.

    `api_key` is called for each request, so that a new key is used at once, and `on_unauthorized` after each 401. A
    look-up makes several requests under one `timeout`.
    """

    def __init__(
        self,
        base_url: str = "https://api.stripe.com",
        *,
        api_key: Callable[[], str],
        name: str = "stripe",
        timeout: timedelta = timedelta(seconds=30),
        connect_timeout: timedelta | None = None,
        connections: int = 256,
        consistency_lag: timedelta = timedelta(seconds=90),
        unknown_deadline: timedelta = timedelta(hours=12),
        poll_delays: Sequence[timedelta] = POLL_DELAYS,
        idle_limit_s: float = IDLE_LIMIT_S,
        on_unauthorized: Callable[[], None] | None = None,
    ) -> None:
        """Raises ValueError for a `base_url` that is not an absolute http(s) URL or has a password in it, and for a
        deadline beyond the lifetime of a key."""
        url = parse_base_url(base_url)
        if url.authorization is not None:
            raise ValueError("the base URL of Stripe must have no user and no password: the API key is a setting")
        if unknown_deadline >= KEY_LIFETIME:
            raise ValueError(f"unknown_deadline must be less than {KEY_LIFETIME}, the lifetime of an idempotency key")
        self._name = name
        self._traits = Traits(
            timeout=timeout,
            consistency_lag=consistency_lag,
            unknown_deadline=unknown_deadline,
            key_lifetime=KEY_LIFETIME,
            poll_delays=poll_delays,
            capabilities=kinds.STRIPE,
        )
        self._api_key = api_key
        self._last_key = ""
        self._last_line: str | None = None
        self._on_unauthorized = on_unauthorized
        self._requests = StripeRequests(url)
        self._loop = asyncio.get_running_loop()
        self._http = HttpClient(
            url,
            timeout=timeout,
            connect_timeout=min(CONNECT_TIMEOUT, timeout / 2) if connect_timeout is None else connect_timeout,
            connections=connections,
            idle_limit_s=idle_limit_s,
            headers=_HEADERS,
        )

    async def charge(self, payment: Payment) -> ChargeResult:
        """Make and confirm a PaymentIntent. No failure of Stripe or the network raises.

        Raises ValueError for a key that does not fit into a header.
        """
        request = self._charge_request(payment)
        if not isinstance(request, bytes):
            return request
        answer = self._seen(await self._http.call(request, repeatable=False, max_answer_bytes=MAX_INTENT_BYTES))
        return _parsed_charge(answer, payment) if isinstance(answer, HttpResponse) else answer

    async def look_up(self, payment: Payment, *, may_execute: bool) -> LookUpResult:
        """Look the charge up: by its reference, by the same POST if `may_execute`, and in the list of PaymentIntents.

        No failure of Stripe or the network raises.
        """
        due_s = self._loop.time() + self._traits.timeout.total_seconds()
        if (ref := payment.provider_ref or payment.attempt_ref) is not None:
            retrieved = await self._retrieve(ref, payment, due_s)
            if retrieved is not None:
                return retrieved
        absent: LookUpResult = NotFound()
        if may_execute:
            request = self._charge_request(payment)
            if isinstance(request, Unavailable):
                return request
            if isinstance(request, bytes):
                answer = self._seen(
                    await self._http.call(request, repeatable=False, due_s=due_s, max_answer_bytes=MAX_INTENT_BYTES)
                )
                if not isinstance(answer, HttpResponse):
                    return answer
                result = await self._replayed(answer, payment, due_s)
                if proves(answer, result):
                    return result
                if isinstance(result, Unknown):
                    # Stripe repeats a saved failure while it keeps the key: a charge would bring the same answer.
                    absent = replace(result, is_neutral=True)
        listed = await self._find(payment, due_s)
        if isinstance(listed, Authorized):  # a list has no charges, which name the end of the authorization
            retrieved = await self._retrieve(listed.provider_ref, payment, due_s)
            return retrieved if isinstance(retrieved, Authorized) else listed
        return absent if isinstance(listed, NotFound) else listed

    async def release(self, payment: Payment, declined: Declined) -> LookUpResult:
        """Cancel the PaymentIntent of a declined charge. No failure of Stripe or the network raises."""
        if (ref := declined.provider_ref) is None:
            return Unknown("the decline names no PaymentIntent", at_once=True, is_neutral=True)
        if (authorization := self._authorization()) is None:
            return _NO_KEY
        due_s = self._loop.time() + self._traits.timeout.total_seconds()
        request = self._requests.cancel(ref, authorization=authorization)
        answer = self._seen(
            await self._http.call(request, repeatable=True, due_s=due_s, max_answer_bytes=MAX_INTENT_BYTES)
        )
        if isinstance(answer, HttpResponse) and answer.status == 400:  # it is canceled already, or cannot be: it tells
            answer = await self._get(self._requests.retrieve(ref), due_s=due_s)
        return parse_released(answer, payment, now=datetime.now(UTC)) if isinstance(answer, HttpResponse) else answer

    async def operate(self, operation: Operation, payment: Payment) -> OperationResult:
        """Capture, cancel or refund the PaymentIntent. No failure of Stripe or the network raises.

        Raises ValueError for a key that does not fit into a header.
        """
        if not VISIBLE.fullmatch(operation.provider_key):
            raise ValueError(f"a provider key must be visible ASCII, not {operation.provider_key!r}")
        amount = stripe_amount(operation.amount_minor, operation.currency)
        if amount is None:
            return Declined("invalid_amount", f"Stripe has no such amount of {operation.currency}")
        if (ref := reference_of(payment)) is None:
            return _NO_REFERENCE
        if (authorization := self._authorization()) is None:
            return _NO_KEY
        due_s = self._loop.time() + self._traits.timeout.total_seconds()

        async def post(key: str) -> HttpResponse | Unavailable | Unknown:
            request = self._requests.operation(operation, ref, key=key, amount=amount, authorization=authorization)
            sent = self._http.call(request, repeatable=False, due_s=due_s, max_answer_bytes=MAX_INTENT_BYTES)
            return self._seen(await sent)

        answer = await post(operation.provider_key)
        if not isinstance(answer, HttpResponse):
            return answer
        result = parse_operation_answer(answer, operation, payment, now=datetime.now(UTC))
        if not (is_saved(answer) and isinstance(result, Unknown)) or result.at_once:
            return result
        # Stripe repeats a saved failure while it keeps the key.
        failure = replace(result, is_neutral=True)
        if operation.kind is OperationKind.REFUND:
            return failure
        return await self._operate_anew(operation, payment, failure, post, due_s)

    async def _operate_anew(
        self,
        operation: Operation,
        payment: Payment,
        failure: Unknown,
        post: Callable[[str], Awaitable[HttpResponse | Unavailable | Unknown]],
        due_s: float,
    ) -> OperationResult:
        """Capture or cancel under a key of this attempt's own, unless the PaymentIntent shows that it has been done.

        Stripe does either once for each PaymentIntent, under whatever keys: a first call that is executed after all makes
        this one fail with the state that it has brought about. Whatever does not tell the state leaves the outcome open.
        """
        found = await self.look_up_operation(operation, payment, may_execute=False, due_s=due_s)
        if not isinstance(found, NotFound):
            return failure if isinstance(found, Unavailable) else found
        answer = await post(f"{operation.provider_key}:{operation.attempts}")
        result = (
            parse_operation_answer(answer, operation, payment, now=datetime.now(UTC))
            if isinstance(answer, HttpResponse)
            else answer
        )
        return failure if isinstance(result, Unavailable) else result

    async def look_up_operation(
        self, operation: Operation, payment: Payment, *, may_execute: bool, due_s: float | None = None
    ) -> OperationLookUp:
        """Look a capture or void up by its PaymentIntent, a refund by its id or in the PaymentIntent's list of refunds.

        It never executes anything. No failure of Stripe or the network raises.
        """
        due_s = due_s or self._loop.time() + self._traits.timeout.total_seconds()
        if (ref := reference_of(payment)) is None:
            return _NO_REFERENCE
        if operation.kind is not OperationKind.REFUND:
            request = self._requests.retrieve(ref)
        elif operation.provider_ref is not None:
            request = self._requests.retrieve_refund(operation.provider_ref)
        else:
            return await self._find_refund(operation, payment, ref, due_s)
        answer = await self._get(request, due_s=due_s)
        if not isinstance(answer, HttpResponse):
            return answer
        return parse_operation_look_up(answer, operation, payment, now=datetime.now(UTC))

    async def _find_refund(self, operation: Operation, payment: Payment, ref: str, due_s: float) -> OperationLookUp:
        after: str | None = None
        for _ in range(MAX_PAGES):
            request = self._requests.list_refunds(ref, after=after)
            answer = await self._get(request, due_s=due_s, max_answer_bytes=MAX_PAGE_BYTES)
            if not isinstance(answer, HttpResponse):
                return answer
            page = parse_refund_page(answer, operation, payment, now=datetime.now(UTC))
            if not isinstance(page, RefundPage):
                return page
            if page.found is not None:
                return page.found
            if page.next_after is None:
                return NotFound()
            after = page.next_after
        return Unknown(f"not in the latest {MAX_PAGES} pages of refunds", is_neutral=True)

    async def fetch_dispute(self, ref: str) -> ReportedDispute | NotFound | Unavailable | Unknown:
        """Return a dispute as it is now. No failure of Stripe or the network raises."""
        due_s = self._loop.time() + self._traits.timeout.total_seconds()
        answer = await self._get(self._requests.dispute(ref), due_s=due_s)
        return parse_dispute(answer, ref, now=datetime.now(UTC)) if isinstance(answer, HttpResponse) else answer

    async def _replayed(self, answer: HttpResponse, payment: Payment, due_s: float) -> ChargeResult:
        """Return the result in the answer to a charge that was sent again. If the first never arrived, it is this one's."""
        result = _parsed_charge(answer, payment)
        if isinstance(result, Pending | Authorized) and is_saved(
            answer
        ):  # in its state of the moment when the answer was saved
            return _newer(await self._retrieve(result.provider_ref, payment, due_s), result)
        return result

    async def _retrieve(self, ref: str, payment: Payment, due_s: float) -> ChargeResult | None:
        answer = await self._get(self._requests.retrieve(ref, with_charge=bool(payment.manual_capture)), due_s=due_s)
        return parse_retrieved(answer, payment, now=datetime.now(UTC)) if isinstance(answer, HttpResponse) else answer

    async def _find(self, payment: Payment, due_s: float) -> LookUpResult:
        """Read the list from the payment's first moment on, for `MAX_PAGES` and two thirds of the time; then search."""
        search_s = due_s - self._traits.timeout.total_seconds() / 3
        since = max(payment.created_at, payment.execute_at or payment.created_at) - CLOCK_MARGIN
        after: str | None = None
        pages = 0
        while pages < MAX_PAGES and self._loop.time() < search_s:
            page = await self._page(self._requests.list_since(since, after=after), payment, due_s)
            if not isinstance(page, Page):
                return page
            if page.found is not None:
                return page.found
            if page.next_after is None:
                return NotFound()
            after = page.next_after
            pages += 1
        page = await self._page(self._requests.search(payment), payment, due_s)
        if isinstance(page, Page) and page.found is not None:
            return page.found
        # A search lags behind by up to an hour: it proves presence only.
        return Unknown(f"not in the latest {pages} pages of PaymentIntents, and not found by a search", is_neutral=True)

    async def _page(self, request: str, payment: Payment, due_s: float) -> Page | Unavailable | Unknown:
        answer = await self._get(request, due_s=due_s, max_answer_bytes=MAX_PAGE_BYTES)
        return parse_page(answer, payment, now=datetime.now(UTC)) if isinstance(answer, HttpResponse) else answer

    def _charge_request(self, payment: Payment) -> bytes | Declined | Unavailable:
        """Return the charge, which is the same each time, or the reason why it cannot be sent."""
        if not VISIBLE.fullmatch(payment.provider_key):
            raise ValueError(f"a provider key must be visible ASCII, not {payment.provider_key!r}")
        amount = stripe_amount(payment.amount_minor, payment.currency)
        if payment.payment_method is None:
            return Declined("payment_method_required", "Stripe charges a payment method, and the payment has none")
        if amount is None:
            return Declined("invalid_amount", f"Stripe has no such amount of {payment.currency}")
        if (authorization := self._authorization()) is None:
            return _NO_KEY
        return self._requests.charge(
            payment, amount=amount, payment_method=payment.payment_method, authorization=authorization
        )

    async def _get(
        self, request: str, *, due_s: float, max_answer_bytes: int = MAX_INTENT_BYTES
    ) -> HttpResponse | Unavailable | Unknown:
        if (authorization := self._authorization()) is None:
            return _NO_KEY
        whole = f"{request}{authorization}\r\n".encode("ascii")
        return self._seen(await self._http.call(whole, repeatable=True, due_s=due_s, max_answer_bytes=max_answer_bytes))

    def _seen(self, answer: HttpResponse | Unavailable | Unknown) -> HttpResponse | Unavailable | Unknown:
        if isinstance(answer, HttpResponse) and answer.status == 401 and self._on_unauthorized is not None:
            self._on_unauthorized()
        return answer

    def _authorization(self) -> str | None:
        """Return the header line of the present API key, or None if there is none that fits into a header."""
        try:
            key = self._api_key()
        except (OSError, ValueError):
            return None
        if key != self._last_key:
            self._last_key = key
            self._last_line = f"Authorization: Bearer {key}\r\n" if VISIBLE.fullmatch(key) else None
        return self._last_line


def _parsed_charge(answer: HttpResponse, payment: Payment) -> ChargeResult:
    return parse_charge_answer(answer, payment, now=datetime.now(UTC))


def _newer(retrieved: ChargeResult | None, saved: Pending | Authorized) -> ChargeResult:
    """Return the state of an open charge that was just retrieved, or the saved one if that failed."""
    if retrieved is None or isinstance(retrieved, Unavailable):
        return saved
    return saved if isinstance(retrieved, Unknown) and not retrieved.at_once else retrieved
