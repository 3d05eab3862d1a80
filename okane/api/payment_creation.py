"""Creates payments: parses the body of a request, accepts and counts the payment, and renders the answer.

Guarantee: aiohttp's path and the fast path both come through here, and give the same answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus

from okane.api import (
    card_guard,
    create_request,
    idempotency_key,
    payment_documents,
    saved_methods,
    strict_json,
    timestamps,
)
from okane.api.answer import Answer
from okane.api.create_request import CreateOlderPayment, CreatePayment
from okane.api.problems import FieldError, Problem, invalid, unsafe_amount
from okane.config import Settings
from okane.currencies import CURRENCIES, MAX_AMOUNT_MINOR
from okane.errors import IdempotencyKeyReused, Overloaded, StoreUnavailable, TimeOutOfRange
from okane.intake.accept import IntakeReceipt, PaymentIntake, WrittenRows
from okane.lanes import LaneLimits
from okane.metrics import OkaneMetrics
from okane.payment import MAX_SCHEDULE_AHEAD
from okane.providers.capabilities import NO_CAPABILITIES, Capabilities
from okane.providers.config import HTTP
from okane.providers.routing import NoCandidate, Router, RouteRequest, weight_key
from okane.store import NewPayment
from okane.store.payment_methods import PaymentMethodStore
from okane.time_slice import TimeSlice
from streams.failpoints import failpoint
from streams.values import value

MAX_BODY_BYTES = strict_json.MAX_BYTES

BEFORE_ANSWER = failpoint("accept.before_answer", "accepted, no answer sent", raises=StoreUnavailable)

Renderer = Callable[[IntakeReceipt], bytes]

# The paths that create payments, each with the renderer of its receipt: okane's members, or those of the older queue.
RENDERERS: Mapping[str, Renderer] = {
    "/v1/payments": payment_documents.receipt_json,
    "/payments": payment_documents.receipt_json,
    "/pay": payment_documents.pay_receipt_json,
}
# The same paths, each with the model of its body.
MODELS: Mapping[str, type[CreateOlderPayment]] = {
    "/v1/payments": CreatePayment,
    "/payments": CreatePayment,
    "/pay": CreateOlderPayment,
}

ONLY_HTTP = frozenset({HTTP})


@value
class WrittenBatch:
    """Payments whose rows are written and whose wake-ups are not. `refusals` is empty, or has a problem or None for each."""

    news: Sequence[NewPayment]
    refusals: Sequence[Problem | None]
    written: WrittenRows


class PaymentCreation:
    """Creates the payments that clients request. `providers`: the names that a new payment may request. `router` chooses
    the candidates of those that request none. Without `methods` no payment can name a saved payment method."""

    def __init__(
        self,
        *,
        settings: Settings,
        intake: PaymentIntake,
        metrics: OkaneMetrics,
        providers: Collection[str] = ONLY_HTTP,
        router: Router | None = None,
        methods: PaymentMethodStore | None = None,
        capabilities: Capabilities = NO_CAPABILITIES,
    ) -> None:
        self._methods = methods
        self._providers = frozenset(providers)
        self._router = router or Router.of_able(providers)
        self._capabilities = capabilities
        self._default_currency = settings.default_currency
        self._amount_limits = settings.amount_limits or {}
        self._lanes = LaneLimits(settings.critical_from_minor, settings.low_below_minor)
        self._intake = intake
        self._created = metrics.accepted.labels("created")
        self._replayed = metrics.accepted.labels("replayed")
        self._not_enqueued = metrics.not_enqueued

    def parse(
        self,
        body: bytes,
        keys: Sequence[str],
        *,
        account_id: str,
        model: type[CreateOlderPayment] = CreatePayment,
    ) -> NewPayment:
        """Return the payment in a body, under the key in it or in these `Idempotency-Key` headers. Raises Problem."""
        request = create_request.parse_fast(body, model) or create_request.validate_create_request(
            strict_json.loads(body), model
        )
        # In a smaller body no metadata can be too large: it does not grow when it is written.
        if len(body) > create_request.MAX_METADATA_BYTES:
            create_request.check_metadata(request.metadata)
        return create_request.to_new_payment(
            request,
            account_id=account_id,
            key=idempotency_key.choose_key(keys, request.idempotency_key),
            currency=request.currency or self._default_currency,
            lane=self._lanes.lane_for(request.amount),
        )

    async def write(self, news: Sequence[NewPayment]) -> WrittenBatch:
        """Commit the rows of these payments, all but those of which new ones are refused."""
        refusals = [self._refusal(new) for new in news]
        time_slice = None
        for at, new in enumerate(news):
            if card_guard.may_be_refused(new) and refusals[at] is None:
                time_slice = time_slice or TimeSlice()
                refusals[at] = await card_guard.payment_refusal(new, time_slice)
        tokens: Mapping[int, frozenset[str]] = {}
        if self._methods is not None:
            tokens = await saved_methods.find_providers(self._methods, news, refusals)
        if tokens or self._router.has_rules or any(new.manual_capture for new in news):
            news = [self._routed(number, new, refusals, tokens.get(number)) for number, new in enumerate(news)]
        if not any(refusals):
            return WrittenBatch(news, (), await self._intake.write(news))
        wanted = [new for new, problem in zip(news, refusals, strict=True) if problem is None]
        return WrittenBatch(news, refusals, await self._intake.write(wanted))

    async def wake(self, batch: WrittenBatch) -> Sequence[IntakeReceipt | BaseException]:
        """Send the wake-ups; return the receipt of each payment, or the exception that is its answer."""
        receipts = await self._intake.wake(batch.written)
        if batch.refusals:
            following = iter(receipts)
            receipts = [next(following) if problem is None else problem for problem in batch.refusals]
        made = [receipt for receipt in receipts if isinstance(receipt, IntakeReceipt)]
        if len(made) < len(receipts):
            refused = [
                each for each in zip(batch.news, receipts, strict=True) if not isinstance(each[1], IntakeReceipt)
            ]
            found = iter(await asyncio.gather(*(self._of_earlier(new, refusal) for new, refusal in refused)))
            receipts = [one if isinstance(one, IntakeReceipt) else next(found) for one in receipts]
            made = [receipt for receipt in receipts if isinstance(receipt, IntakeReceipt)]
        self._count(made)
        return [await _passed(receipt) for receipt in receipts] if BEFORE_ANSWER.armed else receipts

    async def create(self, news: Sequence[NewPayment]) -> Sequence[IntakeReceipt | BaseException]:
        """Write the rows of these payments and send their wake-ups; return as `wake` does."""
        return await self.wake(await self.write(news))

    def _refusal(self, new: NewPayment) -> Problem | None:
        """Return the problem with a new payment, or None. Repeats of accepted requests are exempt: limits change, and
        currencies are withdrawn."""
        if new.amount_minor > MAX_AMOUNT_MINOR:
            return unsafe_amount()
        most = self._amount_limits.get(new.currency)
        if most is not None and new.amount_minor > most:
            detail = f"{new.currency} payments are limited to {most} here"
            errors = [FieldError("/amount", "amount_too_large", detail)]
            return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "amount_too_large", detail, errors=errors)
        if new.currency not in CURRENCIES:
            detail = f"{new.currency} is not a currency of new payments: GET /v1/currencies lists them"
            return invalid([FieldError("/currency", "currency_unknown", detail)])
        if new.requested_provider is not None and new.requested_provider not in self._providers:
            detail = f"the providers here are {', '.join(sorted(self._providers))}"
            errors = [FieldError("/provider", "provider_unknown", detail)]
            return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "provider_unknown", f"/provider: {detail}", errors=errors)
        name = new.requested_provider
        if new.manual_capture and name is not None and "manual_capture" not in self._capabilities.get(name, ()):
            detail = f"{name} cannot hold the money of a payment"
            errors = [FieldError("/capture_method", "unsupported_by_provider", detail)]
            detail = f"/capture_method: {detail}"
            return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "unsupported_by_provider", detail, errors=errors)
        return None

    def _routed(
        self, number: int, new: NewPayment, refusals: list[Problem | None], tokens: frozenset[str] | None
    ) -> NewPayment:
        """Return the payment with the candidates of its route, and enter the problem of one that has none.

        `tokens` are the providers at which its saved payment method has a token; None: it names no saved one.
        """
        if refusals[number] is not None:
            return new
        if new.requested_provider is not None:
            if tokens is not None and new.requested_provider not in tokens:
                refusals[number] = saved_methods.unusable(tokens)
            return new
        try:
            route = self._router.route(_route_request(new, tokens))
        except NoCandidate as error:
            if tokens is not None and tokens.isdisjoint(error.names):
                refusals[number] = saved_methods.unusable(tokens)
            else:
                detail = f"no provider that may take this payment can: {error}"
                refusals[number] = Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "unsupported_by_provider", detail)
            return new
        return (
            new
            if route is None
            else replace(new, candidates=route.candidates, soft_fallback=route.soft_fallback or None)
        )

    async def _of_earlier(
        self, new: NewPayment, refusal: IntakeReceipt | BaseException
    ) -> IntakeReceipt | BaseException:
        """Return the receipt of an earlier request in the place of a refusal: a client that repeats one is not refused."""
        match refusal:
            case TimeOutOfRange(now=now):
                return _out_of_range(new, now)
            case Problem() | Overloaded():
                try:
                    return await self._intake.find(new) or refusal
                except (IdempotencyKeyReused, StoreUnavailable) as error:
                    return error
        return refusal

    def _count(self, receipts: Sequence[IntakeReceipt]) -> None:
        created = [receipt for receipt in receipts if receipt.created]
        self._created.inc(len(created))
        self._replayed.inc(len(receipts) - len(created))
        # A scheduled payment gets its wake-up when it is due.
        unsent = [one for one in created if not one.enqueued and one.payment.execute_at is None]
        self._not_enqueued.inc(len(unsent))


def _out_of_range(new: NewPayment, now: datetime) -> Problem:
    """Return the problem of a new payment whose times are out of range by the database's clock, which was at `now`."""
    given = [("execute_at", new.execute_at), ("expires_at", new.expires_at)]
    times = [(name, moment) for name, moment in given if moment is not None]
    wrong = [name for name, moment in times if not now < moment <= now + MAX_SCHEDULE_AHEAD] or [
        name for name, _ in times
    ]
    detail = f"must be in the future, and at most a year away; it is {timestamps.to_text(now)} here"
    return invalid([FieldError(f"/{name}", "out_of_range", detail) for name in wrong])


def _route_request(new: NewPayment, tokens: frozenset[str] | None) -> RouteRequest:
    return RouteRequest(
        amount_minor=new.amount_minor,
        currency=new.currency,
        account_id=new.account_id,
        manual_capture=bool(new.manual_capture),
        key=weight_key(new.account_id, new.idempotency_key),
        payment_method=new.payment_method,
        tokens=tokens,
    )


async def _passed(receipt: IntakeReceipt | BaseException) -> IntakeReceipt | BaseException:
    """Return the receipt, or the error of the failpoint."""
    try:
        await BEFORE_ANSWER.hit()
    except StoreUnavailable as error:
        return error
    return receipt


def to_answer(receipt: IntakeReceipt, renderer: Renderer) -> Answer:
    """Return the answer to a request with this receipt."""
    headers = {"Location": location(receipt)}
    if not receipt.created:
        headers["Idempotent-Replayed"] = "true"
    status = HTTPStatus.ACCEPTED if receipt.created else HTTPStatus.OK
    return Answer(status, renderer(receipt), headers)


def location(receipt: IntakeReceipt) -> str:
    """Return the path of the payment of a receipt."""
    return f"/v1/payments/{receipt.payment.id}"
