"""Splits the body of a batch into its items, without parsing them. Pure.

Guarantee: if the body is JSON, the items are those that a parser would find; if it is not, one of them is not JSON either, or
Problem is raised. No step takes longer than about a millisecond: the iterators yield None where there is no item yet, so
that their caller can let other requests run.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator

from okane.api import strict_json
from okane.api.problems import Problem, malformed

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLANKS = b" \t\r\n"
STEP_BYTES = 16 * 1024
# Skipped in one step: strings, and characters that are neither quote nor bracket (nor comma, in the array itself). The
# patterns never go back, so that no byte is matched twice but those of a string that the end of a step cuts off. Groups are
# atomic and not possessive: before Python 3.11.5 a possessive group ends behind a last turn that failed (gh-106052).
_TEXT = rb'"(?>[^"\\]*(?:\\.[^"\\]*)*)"'
_BETWEEN_ITEMS = re.compile(rb'(?>(?:[^",\[\]{}]++|' + _TEXT + rb")*)", re.DOTALL)
_INSIDE_ITEMS = re.compile(rb'(?>(?:[^"\[\]{}]++|' + _TEXT + rb")*)", re.DOTALL)
_BLANK = re.compile(rb"[ \t\r\n]*+")
_INSIDE_TEXT = re.compile(rb'(?>(?:[^"\\]++|\\.)*)', re.DOTALL)


def _skip(what: re.Pattern[bytes], body: bytes, at: int) -> int:
    found = what.match(body, at, at + STEP_BYTES)
    assert found is not None  # the patterns match the empty string too
    return found.end()


def of_lines(body: bytes) -> Iterator[bytes | None]:
    """Yield the lines that are not blank."""
    yield None  # receiving the body has used time already
    start = yield from _after_blanks(body, 0)
    while start < len(body):
        end = body.find(b"\n", start)
        end = len(body) if end < 0 else end
        yield body[start:end].rstrip(_BLANKS)
        start = yield from _after_blanks(body, end)


def of_array(body: bytes) -> Iterator[bytes | None]:
    """Yield the items of a JSON array."""
    yield None  # receiving the body has used time already
    at = yield from _after_blanks(body, len(_BYTE_ORDER_MARK) if body.startswith(_BYTE_ORDER_MARK) else 0)
    if body[at : at + 1] != b"[":
        raise _no_array(body)
    at = start = at + 1
    depth, first = 1, True
    while depth:
        before, at = at, _skip(_BETWEEN_ITEMS if depth == 1 else _INSIDE_ITEMS, body, at)
        match body[at : at + 1]:
            case b'"' if at == before:
                at = yield from _after_text(body, at)
            case b"[" | b"{":
                depth, at = depth + 1, at + 1
                if depth > strict_json.MAX_DEPTH:
                    raise strict_json.too_deep()
            case b"]" | b"}" if depth > 1:
                depth, at = depth - 1, at + 1
            case b"," if depth == 1:
                yield body[start:at].strip(_BLANKS)
                at = start = at + 1
                first = False
            case b"]":
                depth = 0
            case b"" | b"}":
                raise malformed("json_invalid", "the body is not JSON: the array does not end")
        yield None
    last = body[start:at].strip(_BLANKS)
    if last or not first:
        yield last
    end = yield from _after_blanks(body, at + 1)
    if end < len(body):
        raise malformed("json_invalid", "the body is not JSON: there is more after the array")


def _after_blanks(body: bytes, at: int) -> Generator[None, None, int]:
    """Return the position of the first byte that is not a blank."""
    while (end := _skip(_BLANK, body, at)) > at:
        at = end
        yield None
    return at


def _after_text(body: bytes, at: int) -> Generator[None, None, int]:
    """Return the end of a string that is too long for one step."""
    at += 1
    while True:
        before, at = at, _skip(_INSIDE_TEXT, body, at)
        if body[at : at + 1] == b'"':
            return at + 1
        if at == before:
            raise malformed("json_invalid", "the body is not JSON: a text does not end")
        yield None


def _no_array(body: bytes) -> Problem:
    """Return the problem with a body that is not a batch: it may not be JSON at all."""
    if len(body) <= strict_json.MAX_BYTES:
        strict_json.loads(body)
    return malformed("body_not_an_array", "a batch is a JSON array, or one object a line as application/x-ndjson")
