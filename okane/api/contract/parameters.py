"""What stands in the head of a request and of an answer, and after the question mark, each with what it means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from okane.api import idempotency_key

Json = dict[str, Any]

HEADERS: Mapping[str, Json] = {
    "X-Request-Id": {"description": "The request's id: its own, or one of ours.", "schema": {"type": "string"}},
    "Cache-Control": {
        "description": "`no-store`, or for how long a description may be kept.",
        "schema": {"type": "string"},
    },
    "Location": {"description": "Where the payment is.", "schema": {"type": "string", "format": "uri-reference"}},
    "Idempotent-Replayed": {
        "description": "The request was made before.",
        "schema": {"type": "string", "const": "true"},
    },
    "Preference-Applied": {
        "description": "The wait that `Prefer` asked for, as it was understood.",
        "schema": {"type": "string", "pattern": "^wait=[0-9]+$"},
    },
    "ETag": {"description": "The payment's version.", "schema": {"type": "string"}},
    "Retry-After": {
        "description": "In how many seconds to ask again.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "Link": {"description": "The next page, as `rel=next`.", "schema": {"type": "string"}},
    "WWW-Authenticate": {"description": "How to send a key, or which scope it lacks.", "schema": {"type": "string"}},
    "RateLimit-Policy": {
        "description": "How many requests (q) the key may make in how many seconds (w).",
        "schema": {"type": "string"},
    },
    "RateLimit": {"description": "How many are left (r), all of them in t seconds.", "schema": {"type": "string"}},
}
ALWAYS = frozenset({"X-Request-Id", "Cache-Control", "Location"})

PARAMETERS: Mapping[str, Json] = {
    "Idempotency-Key": {
        "description": "Unless the body has it: 1 to 255 visible ASCII characters.",
        "schema": idempotency_key.KEY,
        "examples": {"key": {"value": "demo-key-1"}},
    },
    "Prefer": {
        "description": "`wait=N`: answer when the payment has come to rest, in N seconds (30 at most) as it is then.",
        "schema": {"type": "string"},
        "examples": {"wait": {"value": "wait=5"}},
    },
    "If-None-Match": {"description": "The ETag that is known.", "schema": {"type": "string"}},
}

FILTERS: Mapping[str, str] = {
    "limit": "So many at most.",
    "order": "Newest first (`descending`), or oldest first (`ascending`).",
    "after": "The cursor that the page before ended with, as it is.",
    "status": "Any of these: repeat it for several.",
    "currency": "In this currency.",
    "provider": "Of those that this provider was called for.",
    "lane": "In this lane.",
    "created_after": "Made at this moment or later.",
    "created_before": "Made before this moment.",
    "updated_after": "Changed last at this moment or later.",
    "updated_before": "Changed last before this moment.",
    "dead_after": "Given up at this moment or later.",
    "dead_before": "Given up before this moment.",
    "amount_min": "Of this amount or more, in minor units.",
    "amount_max": "Of this amount or less, in minor units.",
    "idempotency_key": "The one that was made under this key.",
    "provider_ref": "The one that the provider knows by this.",
    "metadata": "With exactly this value under this name, as `metadata[name]=value`; for several names if need be.",
}
