"""The problem codes of the API. A code keeps its meaning once it is released.

The OpenAPI document and docs/errors.md have the same codes; tests compare all three with what the code raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus


@dataclass(frozen=True, slots=True)
class Code:
    """The meaning of a code. `retryable`: the same request may succeed later."""

    status: HTTPStatus
    means: str
    retryable: bool = False


_BAD = HTTPStatus.BAD_REQUEST
_UNPROCESSABLE = HTTPStatus.UNPROCESSABLE_ENTITY
_AWAY = HTTPStatus.SERVICE_UNAVAILABLE

CODES: Mapping[str, Code] = {
    "json_invalid": Code(_BAD, "The body is not JSON in UTF-8."),
    "json_invalid_text": Code(_BAD, "A text in the body holds NUL characters or lone surrogates."),
    "json_duplicate_name": Code(_BAD, "An object of the body has a name twice."),
    "json_too_deep": Code(_BAD, "The body is nested deeper than 8 levels."),
    "body_not_an_object": Code(_BAD, "The body is JSON, but not an object."),
    "body_not_an_array": Code(_BAD, "The body of a batch is JSON, but not an array."),
    "body_unreadable": Code(_BAD, "The body broke off, or is not coded as its headers state."),
    "idempotency_key_missing": Code(_BAD, "There is no idempotency key, in the header or in the body."),
    "idempotency_key_invalid": Code(_BAD, "The idempotency key is not 1 to 255 visible ASCII characters."),
    "idempotency_key_mismatch": Code(_BAD, "Header and body carry different idempotency keys."),
    "idempotency_key_misplaced": Code(_BAD, "A whole batch carries one Idempotency-Key header."),
    "query_invalid": Code(_BAD, "Parameters of the query are wrong, unknown, or there twice: `errors` names them."),
    "request_line_invalid": Code(_BAD, "The request line is not HTTP."),
    "request_invalid": Code(_BAD, "The head of the request, or the framing of its body, cannot be read."),
    "framing_invalid": Code(_BAD, "Two servers could cut this request off at different places."),
    "notice_invalid": Code(
        _BAD, "The webhook of a provider has a wrong signature, was signed too long ago, or is unreadable."
    ),
    "key_missing": Code(HTTPStatus.UNAUTHORIZED, "The request has no API key."),
    "key_invalid": Code(
        HTTPStatus.UNAUTHORIZED, "The API key does not exist, was revoked, has expired, or is of the other mode."
    ),
    "scope_missing": Code(HTTPStatus.FORBIDDEN, "The API key lacks the scope of this route."),
    "cross_site_request": Code(
        HTTPStatus.FORBIDDEN, "Without keys: the request comes from a web page of another origin."
    ),
    "host_not_allowed": Code(
        HTTPStatus.MISDIRECTED_REQUEST, "Without keys: `Host` names neither this machine nor an allowed name."
    ),
    "payment_not_found": Code(HTTPStatus.NOT_FOUND, "The account has no such payment."),
    "refund_not_found": Code(HTTPStatus.NOT_FOUND, "The account has no such refund."),
    "endpoint_not_found": Code(HTTPStatus.NOT_FOUND, "The account has no such webhook endpoint."),
    "payment_method_not_found": Code(HTTPStatus.NOT_FOUND, "The account has no such payment method."),
    "dispute_not_found": Code(HTTPStatus.NOT_FOUND, "The account has no such dispute."),
    "event_not_found": Code(HTTPStatus.NOT_FOUND, "The account has no such event, or no more."),
    "provider_not_found": Code(HTTPStatus.NOT_FOUND, "This server takes no webhooks from such a provider."),
    "route_not_found": Code(HTTPStatus.NOT_FOUND, "There is no such route."),
    "archived": Code(HTTPStatus.GONE, "Payments of this time were archived: they are in files of the operator."),
    "method_not_allowed": Code(HTTPStatus.METHOD_NOT_ALLOWED, "The route has other methods: see `Allow`."),
    "head_too_slow": Code(HTTPStatus.REQUEST_TIMEOUT, "The head of the request did not come in time.", retryable=True),
    "body_too_slow": Code(HTTPStatus.REQUEST_TIMEOUT, "The body did not come in time.", retryable=True),
    "status_conflict": Code(
        HTTPStatus.CONFLICT, "The status of the payment or refund, which the answer has, does not allow this."
    ),
    "payment_not_authorized": Code(
        HTTPStatus.CONFLICT, "No money of the payment is held: it can be neither captured nor voided."
    ),
    "payment_not_captured": Code(HTTPStatus.CONFLICT, "No money of the payment has moved: there is none to refund."),
    "operation_in_progress": Code(HTTPStatus.CONFLICT, "A capture or void of the payment is under way."),
    "too_many_endpoints": Code(HTTPStatus.CONFLICT, "The account has 16 webhook endpoints."),
    "endpoint_has_no_url": Code(HTTPStatus.CONFLICT, "Nothing is sent to this endpoint: its events are read."),
    "too_many_recoveries": Code(HTTPStatus.CONFLICT, "The endpoint has 8 recoveries that are not done."),
    "body_too_large": Code(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "The body or an item of a batch has over 64 kB, a batch 1 MB, or a webhook 256 kB.",
    ),
    "target_too_long": Code(HTTPStatus.REQUEST_URI_TOO_LONG, "The target has more than 4,096 bytes."),
    "unsupported_media_type": Code(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body is not application/json in UTF-8, uncompressed."
    ),
    "expectation_failed": Code(HTTPStatus.EXPECTATION_FAILED, "There is an Expect other than 100-continue."),
    "validation_failed": Code(_UNPROCESSABLE, "Members of the body are wrong: `errors` names them by JSON Pointer."),
    "amount_unsafe_integer": Code(
        _UNPROCESSABLE, "The amount is above 2^53-1, which not every JSON parser keeps exactly (RFC 7493)."
    ),
    "too_many_members": Code(
        _UNPROCESSABLE, "An object of the body has more than 64 members, or the body more than 1,000 values."
    ),
    "amount_too_large": Code(_UNPROCESSABLE, "The amount is above this server's limit for the currency."),
    "card_number": Code(_UNPROCESSABLE, "A text looks like the number of a card: `errors` names its member."),
    "capture_exceeds_authorized": Code(_UNPROCESSABLE, "The capture is for more than `limit`, which is held."),
    "refund_exceeds_captured": Code(
        _UNPROCESSABLE, "The refund is for more than `limit`: what was captured, without other refunds."
    ),
    "currency_mismatch": Code(_UNPROCESSABLE, "The `currency` of a capture or refund is not that of its payment."),
    "provider_unknown": Code(_UNPROCESSABLE, "The `provider` is not one of this server's."),
    "payment_method_unknown": Code(
        _UNPROCESSABLE, "The `payment_method` is no saved method of the account, or it was deleted."
    ),
    "payment_method_unusable": Code(
        _UNPROCESSABLE, "The saved payment method has no token at a provider that may charge the payment."
    ),
    "unsupported_by_provider": Code(
        _UNPROCESSABLE, "The provider of the payment, or any that may take it, cannot do this: the detail says why."
    ),
    "endpoint_url_refused": Code(
        _UNPROCESSABLE, "The URL of an endpoint is not one that this server may call: `errors` says why."
    ),
    "batch_size": Code(_UNPROCESSABLE, "A batch has 1 to 1,000 items."),
    "idempotency_key_reused": Code(
        _UNPROCESSABLE,
        "The idempotency key belongs to `payment_id`, `payment_method_id` or `operation_id`, which has other members.",
    ),
    "rate_limited": Code(HTTPStatus.TOO_MANY_REQUESTS, "The key exceeds its rate limit.", retryable=True),
    "too_many_reads": Code(
        HTTPStatus.TOO_MANY_REQUESTS,
        "The account has reached its limit of lists that are read or wait at the same time.",
        retryable=True,
    ),
    "too_many_tests": Code(
        HTTPStatus.TOO_MANY_REQUESTS, "Tests of webhook endpoints are not answered yet.", retryable=True
    ),
    "head_too_large": Code(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "There are more than 64 header fields, or too long ones."
    ),
    "internal": Code(HTTPStatus.INTERNAL_SERVER_ERROR, "A bug in okane.", retryable=True),
    "method_unknown": Code(HTTPStatus.NOT_IMPLEMENTED, "HTTP has no such method."),
    "transfer_coding_unknown": Code(HTTPStatus.NOT_IMPLEMENTED, "The only transfer coding is chunked."),
    "store_unavailable": Code(
        _AWAY, "Postgres does not answer; the request may have been carried out.", retryable=True
    ),
    "not_ready": Code(_AWAY, "Postgres takes no writes, or the process is about to end.", retryable=True),
    "overloaded": Code(_AWAY, "Payments wait too long: no new ones are accepted.", retryable=True),
    "webhooks_not_configured": Code(_AWAY, "The server has no `OKANE_WEBHOOK_MASTER`."),
    "webhooks_busy": Code(
        _AWAY, "Changes of payments did not end, or the dispatcher has not confirmed, in time.", retryable=True
    ),
    "too_many_notices": Code(_AWAY, "The server has reached its limit of webhooks in hand.", retryable=True),
    "too_many_connections": Code(_AWAY, "The server has reached its limit of connections.", retryable=True),
    "http_version_unsupported": Code(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 and HTTP/1.0 only."),
}

# The problems of any request: those before its route is known, and a bug.
ANYWHERE = (
    "request_line_invalid",
    "request_invalid",
    "framing_invalid",
    "head_too_slow",
    "target_too_long",
    "expectation_failed",
    "head_too_large",
    "internal",
    "method_unknown",
    "transfer_coding_unknown",
    "too_many_connections",
    "http_version_unsupported",
)
NOWHERE = frozenset({"route_not_found", "method_not_allowed"})  # without an operation
OF_KEYS = (
    "key_missing",
    "key_invalid",
    "scope_missing",
    "rate_limited",
    "store_unavailable",
    "cross_site_request",
    "host_not_allowed",
)
OF_BODIES = (
    "json_invalid",
    "json_invalid_text",
    "json_duplicate_name",
    "json_too_deep",
    "body_unreadable",
    "body_too_slow",
    "body_too_large",
    "too_many_members",
    "unsupported_media_type",
)
