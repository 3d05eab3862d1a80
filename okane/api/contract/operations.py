"""The operations of the OpenAPI document: name, request, responses and problems of each route in `okane.api.routes`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

from pydantic import BaseModel, Field

from okane.api import batch
from okane.api.answer import JSON
from okane.api.contract import operation_schemas, problem_codes, schemas
from okane.api.create_request import CreateOlderPayment, CreatePayment, IdempotencyKey
from okane.api.dead_letters import DeadQuery, ReplayRequest
from okane.api.query_parameters import PartQuery, PaymentQuery
from okane.api.resolve_request import ResolveRequest
from okane.api_key import Scope

PAYMENTS, DEAD_LETTERS, HEALTH = "Payments", "Dead letters", "Health"
PROVIDERS = "Webhooks of providers"
OKANE, TITAN_QUEUE = "As okane (Go) had it", "As Titan Queue had it"
DESCRIPTION = "This description"

OPENAPI, HTML = "application/vnd.oai.openapi+json", "text/html"


@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessResponse:
    """A response that is not a problem. `follows` points to the member whose id the links to other operations take."""

    status: HTTPStatus
    means: str
    body: Any = None
    media_type: str = JSON
    headers: Sequence[str] = ()
    follows: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """The body of a request, and an example of it."""

    schema: Any
    example: Any
    required: bool = True
    media_types: Sequence[str] = (JSON,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation. `problems` are its own, besides those of any request."""

    name: str
    tag: str
    summary: str
    responses: Sequence[SuccessResponse]
    details: str = ""
    body: Body | None = None
    query: type[BaseModel] | None = None
    headers: Sequence[str] = ()
    problems: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method and a path, the scope that a key needs for them (None: no key), and their part of the document."""

    method: str
    path: str
    scope: Scope | None
    operation: Operation


class BatchItem(CreatePayment):
    """One payment of a batch."""

    idempotency_key: IdempotencyKey


Items = Annotated[list[BatchItem], Field(min_length=1, max_length=batch.MAX_ITEMS)]

_CREATED = ("Location", "Preference-Applied")
_CREATING = (
    *problem_codes.OF_BODIES,
    "body_not_an_object",
    "idempotency_key_missing",
    "idempotency_key_invalid",
    "idempotency_key_mismatch",
    "validation_failed",
    "amount_unsafe_integer",
    "amount_too_large",
    "card_number",
    "provider_unknown",
    "payment_method_unknown",
    "payment_method_unusable",
    "unsupported_by_provider",
    "idempotency_key_reused",
    "overloaded",
)
_OF_PROVIDERS = frozenset(
    {"provider_unknown", "payment_method_unknown", "payment_method_unusable", "unsupported_by_provider"}
)
_BATCH = (*problem_codes.OF_BODIES, "body_not_an_array", "idempotency_key_misplaced", "batch_size")
_REPLAY = (*problem_codes.OF_BODIES, "body_not_an_object", "validation_failed", "too_many_reads")
_CHANGE = ("payment_not_found", "archived", "status_conflict")

_REPEAT = (
    "Repeat a request that got no answer, or a `retryable` one, with the same idempotency key, for as long as it takes: it "
    "makes one payment. The key is sent as the `Idempotency-Key` header, or as `idempotency_key` in the body."
)


def _creates(
    name: str, tag: str, summary: str, body: Any, *, follows: str | None, takes: type[BaseModel] = CreatePayment
) -> Operation:
    repeated = ("Idempotent-Replayed", *_CREATED)
    return Operation(
        name=name,
        tag=tag,
        summary=summary,
        details=_REPEAT,
        body=Body(schema=takes, example=schemas.CREATE),
        headers=("Idempotency-Key", "Prefer"),
        responses=(
            SuccessResponse(
                status=HTTPStatus.ACCEPTED, means="A new payment.", body=body, headers=_CREATED, follows=follows
            ),
            SuccessResponse(
                status=HTTPStatus.OK,
                means="The payment of an earlier request, as it is now.",
                body=body,
                headers=repeated,
                follows=follows,
            ),
        ),
        problems=_CREATING if takes is CreatePayment else tuple(one for one in _CREATING if one not in _OF_PROVIDERS),
    )


def _shows(name: str, tag: str, summary: str, body: Any) -> Operation:
    return Operation(
        name=name,
        tag=tag,
        summary=summary,
        headers=("Prefer", "If-None-Match"),
        responses=(
            SuccessResponse(
                status=HTTPStatus.OK,
                means="The payment.",
                body=body,
                headers=("ETag", "Retry-After", "Preference-Applied"),
            ),
            SuccessResponse(
                status=HTTPStatus.NOT_MODIFIED,
                means="It is as `If-None-Match` says.",
                headers=("ETag", "Retry-After", "Preference-Applied"),
            ),
        ),
        problems=("payment_not_found", "archived"),
    )


def _retries(name: str, tag: str) -> Operation:
    return Operation(
        name=name,
        tag=tag,
        summary="Try a failed payment again",
        details="A payment that has failed is `pending` again. From any other status: 409.",
        responses=(
            SuccessResponse(
                status=HTTPStatus.ACCEPTED,
                means="It is pending.",
                body=schemas.Receipt,
                headers=("Location",),
                follows="/payment/id",
            ),
        ),
        problems=_CHANGE,
    )


def _health(name: str, tag: str = HEALTH) -> Operation:
    return Operation(
        name=name,
        tag=tag,
        summary="Whether the process answers",
        responses=(SuccessResponse(status=HTTPStatus.OK, means="It does.", body=schemas.Health),),
    )


def _page(name: str, summary: str, query: type[BaseModel], body: Any, *, tag: str = PAYMENTS) -> Operation:
    return Operation(
        name=name,
        tag=tag,
        summary=summary,
        query=query,
        responses=(SuccessResponse(status=HTTPStatus.OK, means="A page.", body=body, headers=("Link",)),),
        problems=(
            "query_invalid",
            "too_many_reads",
            *(("payment_not_found", "archived") if query is PartQuery else ()),
        ),
    )


CREATE_PAYMENT = _creates("createPayment", PAYMENTS, "Make a payment", schemas.Receipt, follows="/payment/id")
CREATE_PAYMENTS = Operation(
    name="createPayments",
    tag=PAYMENTS,
    summary="Make up to 1,000 payments",
    details="Each item carries an `idempotency_key` of its own, and is accepted, repeated or refused on its own, as if "
    "it had come alone: the results are in the body.",
    body=Body(schema=Items, example=[schemas.CREATE], media_types=(JSON, batch.NDJSON)),
    responses=(
        SuccessResponse(
            status=HTTPStatus.MULTI_STATUS, means="A result for each item, in order.", body=schemas.BatchAnswer
        ),
    ),
    problems=_BATCH,
)
LIST_PAYMENTS = _page("listPayments", "List payments, newest first", PaymentQuery, schemas.PaymentPage)
GET_PAYMENT = _shows("getPayment", PAYMENTS, "Show a payment as it is now", schemas.PaymentAnswer)
LIST_EVENTS = _page("listEvents", "List the events of a payment, oldest first", PartQuery, schemas.EventPage)
LIST_ATTEMPTS = _page("listAttempts", "List the attempts at a payment, oldest first", PartQuery, schemas.AttemptPage)
RETRY_PAYMENT = _retries("retryPayment", PAYMENTS)
CANCEL_PAYMENT = Operation(
    name="cancelPayment",
    tag=PAYMENTS,
    summary="Withdraw a payment before it is charged",
    details="From `pending` and `failed_retryable`, and once more from `canceled`. From `authorized` the money that is held "
    "is let go first: the payment is `canceled` when the provider has done that. 409 when it is too late, or its outcome is "
    "open.",
    responses=(
        SuccessResponse(status=HTTPStatus.OK, means="It is canceled, and was not charged.", body=schemas.PaymentAnswer),
        SuccessResponse(
            status=HTTPStatus.ACCEPTED,
            means="A void is under way.",
            body=operation_schemas.VoidReceipt,
            headers=("Location",),
        ),
    ),
    problems=(*_CHANGE, "operation_in_progress", "unsupported_by_provider", "too_many_reads"),
)
RESOLVE_PAYMENT = Operation(
    name="resolvePayment",
    tag=PAYMENTS,
    summary="Decide a payment that needs a review",
    details="The decision of a person who has checked with the provider, and the reason. From `needs_review`, and once more "
    "with the same decision. From any other status: 409.",
    body=Body(schema=ResolveRequest, example={"as": "success", "reason": "the provider reports a capture"}),
    responses=(SuccessResponse(status=HTTPStatus.OK, means="It is decided.", body=schemas.PaymentAnswer),),
    problems=(*problem_codes.OF_BODIES, "body_not_an_object", "validation_failed", "card_number", *_CHANGE),
)
LIST_CURRENCIES = Operation(
    name="listCurrencies",
    tag=PAYMENTS,
    summary="List the currencies that new payments may be in",
    details="With the exponent of each: an amount of 440 is 4.40 where it is 2, and 440 where it is 0. Earlier payments "
    "may be in currencies that were withdrawn since. The same for every client, and cacheable.",
    responses=(SuccessResponse(status=HTTPStatus.OK, means="The currencies, by code.", body=schemas.CurrencyList),),
)
LIST_DEAD_LETTERS = _page(
    "listDeadLetters",
    "List the payments that were given up, newest first",
    DeadQuery,
    schemas.DeadLetterPage,
    tag=DEAD_LETTERS,
)
REPLAY_DEAD_LETTERS = Operation(
    name="replayDeadLetters",
    tag=DEAD_LETTERS,
    summary="Retry payments that were given up, oldest first",
    details="Safe to repeat. A payment that needs a review is kept.",
    body=Body(schema=ReplayRequest, example={"filter": {"currency": "USD"}, "dry_run": True}),
    responses=(
        SuccessResponse(
            status=HTTPStatus.OK, means="The payments that are retried, and those that are kept.", body=schemas.Replayed
        ),
    ),
    problems=_REPLAY,
)
TAKE_NOTICE = Operation(
    name="takeNotice",
    tag=PROVIDERS,
    summary="Take the webhook of a provider",
    details="For the servers of a payment provider (Stripe, PayU), not for clients. It needs no key: the signature in its "
    "headers is checked. A webhook decides nothing; it makes okane ask the provider. 200 too for a repeated one, and for "
    "one about a payment that okane does not have.",
    body=Body(schema=dict[str, Any], example={"id": "evt_1", "type": "payment_intent.succeeded"}),
    responses=(SuccessResponse(status=HTTPStatus.OK, means="It is stored.", body=schemas.TakenNotice),),
    problems=(
        "notice_invalid",
        "body_unreadable",
        "body_too_slow",
        "body_too_large",
        "unsupported_media_type",
        "provider_not_found",
        "store_unavailable",
        "too_many_notices",
    ),
)
HEALTH_CHECK = _health("health")
HEALTHZ = _health("healthz")
READYZ = Operation(
    name="readyz",
    tag=HEALTH,
    summary="Whether payments can be accepted",
    responses=(
        SuccessResponse(status=HTTPStatus.OK, means="Postgres takes writes. Redis may be away.", body=schemas.Health),
    ),
    problems=("not_ready", "store_unavailable"),
)
OPENAPI_DOCUMENT = Operation(
    name="openapi",
    tag=DESCRIPTION,
    summary="This description, for machines",
    responses=(SuccessResponse(status=HTTPStatus.OK, means="OpenAPI 3.1.", body=dict[str, Any], media_type=OPENAPI),),
)
DOCS_PAGE = Operation(
    name="docs",
    tag=DESCRIPTION,
    summary="This description, as a page",
    responses=(SuccessResponse(status=HTTPStatus.OK, means="A page that needs no other.", body=str, media_type=HTML),),
)
CREATE_PAYMENT_OKANE = _creates("createPaymentOkane", OKANE, "Make a payment", schemas.Receipt, follows="/payment/id")
GET_PAYMENT_OLDER = _shows(
    "getPaymentOlder", OKANE, "Show a payment as it is now", schemas.PaymentAnswer | schemas.OlderPayment
)
RETRY_PAYMENT_OKANE = _retries("retryPaymentOkane", OKANE)
HEALTH_CHECK_OKANE = _health("healthOkane", OKANE)
PAY = _creates("pay", TITAN_QUEUE, "Make a payment", schemas.OlderPayment, follows=None, takes=CreateOlderPayment)
