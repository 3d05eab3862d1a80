"""The headers of requests and responses and the parameters of queries, with their descriptions and schemas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from okane.api import idempotency_key

Json = dict[str, Any]

HEADERS: Mapping[str, Json] = {
    "X-Request-Id": {
        "description": "The request's id: the client's `X-Request-Id`, or a new one.",
        "schema": {"type": "string"},
    },
    "Cache-Control": {
        "description": "`no-store`, or how long a description may be cached.",
        "schema": {"type": "string"},
    },
    "Location": {
        "description": "The path of the payment, payment method or endpoint.",
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "Idempotent-Replayed": {
        "description": "The answer to the repeat of an earlier request.",
        "schema": {"type": "string", "const": "true"},
    },
    "Preference-Applied": {
        "description": "The wait of `Prefer`, as it was applied.",
        "schema": {"type": "string", "pattern": "^wait=[0-9]+$"},
    },
    "ETag": {"description": "The version of the payment, or of the refund.", "schema": {"type": "string"}},
    "Retry-After": {
        "description": "After how many seconds to repeat the request.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "Link": {"description": "The next page, as `rel=next`.", "schema": {"type": "string"}},
    "WWW-Authenticate": {"description": "How to send a key, or the scope that it lacks.", "schema": {"type": "string"}},
    "RateLimit-Policy": {
        "description": "How many requests (q) the key may make in how many seconds (w).",
        "schema": {"type": "string"},
    },
    "RateLimit": {"description": "How many are left (r), all of them in t seconds.", "schema": {"type": "string"}},
}
ALWAYS = frozenset({"X-Request-Id", "Cache-Control", "Location"})

PARAMETERS: Mapping[str, Json] = {
    "Idempotency-Key": {
        "description": "Required unless the body has the key: 1 to 255 visible ASCII characters.",
        "schema": idempotency_key.KEY,
        "examples": {"key": {"value": "demo-key-1"}},
    },
    "Prefer": {
        "description": "`wait=N`: answer when the payment has come to rest, or the next event is there, and after N seconds "
        "(30 at most) in any case.",
        "schema": {"type": "string"},
        "examples": {"wait": {"value": "wait=5"}},
    },
    "If-None-Match": {"description": "The ETag that the client has.", "schema": {"type": "string"}},
}

FILTERS: Mapping[str, str] = {
    "limit": "The most items of a page.",
    "state": "In any of these states: repeat it for several.",
    "since": "Of this moment or later; with `after`, both hold.",
    "type": "Of any of these types: repeat it for several.",
    "payment": "Of this payment.",
    "endpoint": "Of the types of this endpoint, and with what is to be delivered to its reader again.",
    "order": "Newest first (`descending`), or oldest first (`ascending`).",
    "after": "The `after` of the page before, as it is.",
    "status": "Any of these: repeat it for several.",
    "currency": "In this currency.",
    "provider": "Payments for which this provider was called.",
    "customer": "Of this customer, by your name for them.",
    "lane": "In this lane.",
    "created_after": "Created at this moment or later.",
    "created_before": "Created before this moment.",
    "updated_after": "Changed last at this moment or later.",
    "updated_before": "Changed last before this moment.",
    "dead_after": "Given up at this moment or later.",
    "dead_before": "Given up before this moment.",
    "amount_min": "Of this amount or more, in minor units.",
    "amount_max": "Of this amount or less, in minor units.",
    "idempotency_key": "The payment that was created under this key.",
    "provider_ref": "The payment with this id at the provider.",
    "metadata": "With exactly this value under this name, as `metadata[name]=value`; for several names if need be.",
}
