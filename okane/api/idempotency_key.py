"""The idempotency key of a request: a header (draft-ietf-httpapi-idempotency-key-header) or a member of the body."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus

from okane.api.problems import Problem, malformed
from okane.errors import IdempotencyKeyReused

_VISIBLE_ASCII = re.compile(r"[!-~]{1,255}")

# The JSON Schema of a key.
KEY = {"type": "string", "pattern": f"^{_VISIBLE_ASCII.pattern}$"}


def choose_key(headers: Sequence[str], body: str | None) -> str:
    """Return the key of a request, from its `Idempotency-Key` header or its body. Raises a 400 Problem.

    The header's value is a quoted string in the draft and a bare token in practice: both are accepted.
    """
    keys = [_unquoted(header.strip()) for header in headers]
    if body is not None:
        keys.append(body)
    if not keys:
        raise malformed(
            "idempotency_key_missing",
            "send an Idempotency-Key header, or idempotency_key in the body: a key of your own",
        )
    key = keys[0]
    if keys.count(key) != len(keys):
        raise malformed("idempotency_key_mismatch", "the request carries different idempotency keys")
    if not _VISIBLE_ASCII.fullmatch(key):
        raise malformed("idempotency_key_invalid", "an idempotency key is 1 to 255 visible ASCII characters")
    return key


def key_reused(error: IdempotencyKeyReused) -> Problem:
    """Return the problem of a key that belongs to a payment, or to an operation, with other members."""
    return Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "idempotency_key_reused",
        f"this idempotency key was used for a {error.what} with other members",
        extra={"payment_id" if error.what == "payment" else "operation_id": str(error.payment_id)},
    )


def key_reused_for_method(method_id: str) -> Problem:
    """Return the problem of a key that belongs to a saved payment method with other members."""
    return Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "idempotency_key_reused",
        "this idempotency key was used for a payment method with other members",
        extra={"payment_method_id": method_id},
    )


def _unquoted(value: str) -> str:
    """Return the text of an RFC 8941 string, or the value as it is."""
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(r"\\([\\\"])", r"\1", value[1:-1])
    return value
