"""The body of a request: its media type, its limits of size and time, and its validation."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, TypeVar, get_args

from aiohttp import web
from pydantic import BaseModel, ValidationError

from okane.api.answer import JSON
from okane.api.problems import MAX_ERRORS, FieldError, Problem, invalid, malformed, shortened
from okane.time_slice import TimeSlice

FORM = "application/x-www-form-urlencoded"
BODY_TIMEOUT_S = 5.0  # the largest takes longer only over a very slow line, or on purpose
WHOLE = "a JSON number without fraction or exponent: `96`, not `96.0` or `9.6e1`"

M = TypeVar("M", bound=BaseModel)

UTF_8 = frozenset({"utf-8", "utf8"})


async def read_body(request: web.Request, max_bytes: int) -> bytes:
    """Return the body. One that is declared too large is refused unread; one that does not arrive in time is a 408."""
    if (request.content_length or 0) > max_bytes:
        raise web.HTTPRequestEntityTooLarge(max_size=max_bytes, actual_size=request.content_length or 0)
    try:
        async with asyncio.timeout(None if request.content.is_eof() else BODY_TIMEOUT_S):
            return await _read_chunks(request, max_bytes)
    except TimeoutError:
        raise Problem(
            HTTPStatus.REQUEST_TIMEOUT,
            "body_too_slow",
            f"the body did not come within {BODY_TIMEOUT_S:g} s",
            retryable=True,
        ) from None


async def _read_chunks(request: web.Request, max_bytes: int) -> bytes:
    body, time_slice = bytearray(), TimeSlice()
    # Chunk by chunk: to join many chunks of a byte at once would hold the event loop.
    while not request.content.at_eof():
        chunk, _ = await request.content.readchunk()
        await time_slice.end_if_spent()
        body += chunk
        if len(body) > max_bytes:
            raise web.HTTPRequestEntityTooLarge(max_size=max_bytes, actual_size=len(body))
    return bytes(body)


def check_media_type(request: web.Request, *allowed: str) -> str:
    """Return the one of the allowed types that the body has, uncompressed and in UTF-8; raise a 415 Problem otherwise.

    A missing Content-Type and the one that `curl -d` sets count as JSON: clients of the older systems send those. For a body
    that is a form after all, see `name_form_type`.
    """
    sent = request.headers.get("Content-Type")
    content_type = JSON if sent is None or request.content_type == FORM else request.content_type
    plain = sent is None or (content_type in allowed and (request.charset or "utf-8").lower() in UTF_8)
    coded = request.headers.get("Content-Encoding", "identity").lower() != "identity"
    if not plain or coded:
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "send the body uncompressed" if coded else f"send JSON: {' or '.join(allowed)} in UTF-8",
        )
    return content_type


def name_form_type(problem: Problem, content_type: str | None) -> Problem:
    """Return the problem; if the body is not JSON and its type is that of a form, a 415 in its place."""
    if problem.code != "json_invalid" or (content_type or "").partition(";")[0].strip().lower() != FORM:
        return problem
    return Problem(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        f"send JSON with Content-Type: {JSON}: the body is {FORM}, and not JSON",
    )


def validate(model: type[M], body: Any) -> M:
    """Validate a parsed body. Raises a Problem: 400 if it is not an object, 422 naming every wrong member."""
    if not isinstance(body, dict):
        raise malformed("body_not_an_object", "the body must be a JSON object")
    try:
        return model.model_validate(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise invalid([_field_error(model, one) for one in found[:MAX_ERRORS]], count=len(found)) from None


def _field_error(model: type[BaseModel], error: Any) -> FieldError:
    names = [shortened(str(part)) for part in error["loc"] if part != "[key]"]
    pointer = "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in names)
    if error["type"] == "extra_forbidden":
        for name in error["loc"][:-1]:
            annotation = model.model_fields[name].annotation
            kinds = (annotation, *get_args(annotation))  # it may be optional
            model = next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
        allowed = ", ".join(field.alias or name for name, field in model.model_fields.items())
        return FieldError(pointer, "unknown_member", f"is unknown; the members are {allowed}")
    if error["type"] == "int_type":
        return FieldError(pointer, "int_type", f"must be {WHOLE}".replace("`", ""))
    return FieldError(pointer, error["type"], error["msg"].removeprefix("Value error, "))
