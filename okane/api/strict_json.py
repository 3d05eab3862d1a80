"""JSON as money needs it: what two parsers could read differently is refused (RFC 8259 leaves it open, I-JSON does not)."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from okane.api.problems import malformed

MAX_DEPTH = 8

_BYTE_ORDER_MARK = "\ufeff"


def loads(body: bytes) -> Any:
    """Parse a body. Raises a 400 Problem on anything but UTF-8 JSON without duplicate names, NaN, lone surrogates, NUL
    characters, or more than eight levels."""
    try:
        text = body.decode().removeprefix(_BYTE_ORDER_MARK)
        value = _DECODER.decode(text)
    except UnicodeDecodeError as error:
        raise malformed("json_invalid", f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise malformed("json_invalid", f"the body is not JSON: {error}") from None
    # Without a backslash there is no way to write what text must not hold, nor can so few brackets nest too deeply.
    if "\\" in text or text.count("{") + text.count("[") > MAX_DEPTH:
        _check(value, 1)
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise malformed("json_duplicate_name", f"the name {json.dumps(twice)} stands twice in one object")
    return members


def _no_constant(word: str) -> NoReturn:
    raise malformed("json_invalid", f"{word} is not JSON")


def _check(value: Any, depth: int) -> None:
    if isinstance(value, str):
        if "\x00" in value or not (value.isascii() or _encodable(value)):
            raise malformed("json_invalid_text", "text must not hold NUL characters or lone surrogates")
    elif isinstance(value, dict | list):
        if depth > MAX_DEPTH:
            raise _too_deep()
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


def _too_deep() -> Exception:
    return malformed("json_too_deep", f"the body is nested deeper than {MAX_DEPTH} levels")


_DECODER = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_no_constant)
