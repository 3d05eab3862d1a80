"""A strict JSON parser: input that two parsers could read differently is refused (I-JSON, RFC 7493)."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, NoReturn

from okane.api.problems import Problem, malformed, shortened

MAX_BYTES = 64 * 1024  # the callers' limit: the checks here take a bounded time for bodies up to this size
MAX_DEPTH = 8
MAX_MEMBERS = 64  # of one object: no request has more
MAX_DIGITS = 400  # of a whole number: the time to parse one grows with their square
MAX_VALUES = 1_000  # of all lists and objects together

# The codes of a body that is not JSON, or not I-JSON.
CODES = frozenset({"json_invalid", "json_invalid_text", "json_duplicate_name", "json_too_deep"})

_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_BYTE_ORDER_MARK = "\ufeff"


def loads(body: bytes) -> Any:
    """Parse a body.

    Raises a 400 Problem on anything but UTF-8 JSON without duplicate names, NaN, lone surrogates, NUL characters, or
    more than eight levels; a 422 Problem on more members or values than any request needs, which take long to validate.
    """
    try:
        if _values(body) > MAX_VALUES:
            _check_values(_outside_of_texts(body))
        text = body.decode().removeprefix(_BYTE_ORDER_MARK)
        value = _DECODER.decode(text)
    except UnicodeDecodeError as error:
        raise malformed("json_invalid", f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise too_deep() from None
    except ValueError as error:
        raise malformed("json_invalid", f"the body is not JSON: {error}") from None
    # Without a backslash no string can hold a forbidden character, and so few brackets cannot nest too deeply.
    if "\\" in text or text.count("{") + text.count("[") > MAX_DEPTH:
        _check(value, 1)
    return value


def _values(body: bytes) -> int:
    """Estimate the number of values; commas and brackets within strings count too."""
    return body.count(b",") + body.count(b"[") + body.count(b"{")


def _outside_of_texts(body: bytes) -> bytes:
    return b"".join(body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])


def _check_values(signs: bytes) -> None:
    """Refuse too many values before they are parsed, which takes far longer than to count them."""
    if _values(signs) > MAX_VALUES:
        opening = signs.translate(None, _ALL_BUT_BRACKETS).replace(b"{", b"[")
        raise too_deep() if b"[" * (MAX_DEPTH + 1) in opening else _too_many()


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]  # None is false
        raise malformed("json_duplicate_name", f"the name {json.dumps(shortened(twice))} is twice in one object")
    if len(members) > MAX_MEMBERS:
        raise _too_many()
    return members


def _no_constant(word: str) -> NoReturn:
    raise malformed("json_invalid", f"{word} is not JSON")


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise malformed("json_invalid", f"a whole number has more than {MAX_DIGITS} digits")
    return int(digits)


def _check(value: Any, depth: int) -> None:
    if isinstance(value, str):
        if "\x00" in value or not (value.isascii() or _encodable(value)):
            raise malformed("json_invalid_text", "text must not hold NUL characters or lone surrogates")
    elif isinstance(value, dict | list):
        if depth > MAX_DEPTH:
            raise too_deep()
        if isinstance(value, dict):
            for name in value:
                _check(name, depth)
            value = list(value.values())
        for member in value:
            _check(member, depth + 1)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def too_deep() -> Problem:
    """Return the problem of a body that is nested too deeply."""
    return malformed("json_too_deep", f"the body is nested deeper than {MAX_DEPTH} levels")


def _too_many() -> Problem:
    detail = f"an object has up to {MAX_MEMBERS} members, and a body up to {MAX_VALUES:,} values"
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "too_many_members", detail)


_DECODER = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_no_constant, parse_int=_whole)
