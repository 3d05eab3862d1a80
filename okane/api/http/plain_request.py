"""A plain request for a payment: bytes that every HTTP server reads the same way, parsed without aiohttp.

Plain is a small part of RFC 9112's grammar: one whole request and nothing after it, fields of visible ASCII that stand once
each, no field that changes how the rest is read, and a body of the stated length. For anything else the result is None, and
aiohttp's parser decides: nothing is refused here, so nothing can be decided wrongly in favour of a client.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from okane.api.answer import JSON
from okane.api.payment_creation import MAX_BODY_BYTES, RENDERERS
from okane.api.request_body import FORM

_MAX_HEAD_BYTES = 4096  # any limit of the parser's is larger
_MAX_FIELDS = 32
_LINES = {f"POST {path} HTTP/1.1".encode(): path for path in RENDERERS}
# The group is atomic and not possessive: before Python 3.11.5 that would take blanks at the end (gh-106052).
_FIELD = re.compile(rb"([A-Za-z0-9-]++): ?+([!-~]++(?>(?: ++[!-~]++)*))")
_KEY_NAMES = (b"\r\nIdempotency-Key: ", b"\r\nidempotency-key: ")
_SIZE = re.compile("[1-9][0-9]{0,9}")
_TYPES = frozenset({JSON, f"{JSON}; charset=utf-8", f"{JSON};charset=utf-8", FORM})

# Fields that change how the rest is read, that request more than an answer, or that aiohttp's parser refuses by name.
_UNUSUAL = frozenset(
    {
        "content-encoding",
        "expect",
        "origin",  # a browser's: `okane.origin_guard` judges it
        "prefer",
        "proxy-connection",
        "sec-fetch-site",
        "sec-websocket-key1",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class PlainRequest(NamedTuple):
    """A request to one of the paths that make payments. `fields` are the header fields by their names in lower case, without
    the idempotency key where it stands in `idempotency_keys`."""

    path: str
    fields: Mapping[str, str]
    credentials: Sequence[str]  # the `Authorization` headers: none, or one
    idempotency_keys: Sequence[str]  # the `Idempotency-Key` headers: none, or one
    body: bytes


class _Head(NamedTuple):
    path: str
    fields: Mapping[str, str]
    credentials: Sequence[str]
    idempotency_keys: Sequence[str]
    body_size: int


def parse_plain_request(data: bytes) -> PlainRequest | None:
    """Return the plain request that all of `data` is, or None."""
    end = data.find(b"\r\n\r\n", 0, _MAX_HEAD_BYTES)
    if end < 0 or not data.startswith(b"POST "):
        return None
    head_bytes, key_line = _without_key(data[:end])
    head = _parse_head(head_bytes)
    if head is None:
        return None
    path, fields, credentials, keys, body_size = head
    if key_line is not None:
        field = _FIELD.fullmatch(key_line)
        if field is None or keys:
            return None
        keys = (field[2].decode("ascii"),)
    body = data[end + 4 :]
    return PlainRequest(path, fields, credentials, keys, body) if len(body) == body_size else None


def _without_key(head: bytes) -> tuple[bytes, bytes | None]:
    """Split off the line of the idempotency key, which differs in every request: without it a client's heads are equal, and
    are parsed once. A key in an unusual spelling stays in the head."""
    for name in _KEY_NAMES:
        start = head.find(name)
        if start >= 0:
            end = head.find(b"\r\n", start + 2)
            end = len(head) if end < 0 else end
            return head[:start] + head[end:], head[start + 2 : end]
    return head, None


@functools.lru_cache(maxsize=256)  # a client sends the same head again and again
def _parse_head(head: bytes) -> _Head | None:
    line, *lines = head.split(b"\r\n")
    path = _LINES.get(line)
    if path is None or len(lines) > _MAX_FIELDS:
        return None
    found = [_parse_field(line) for line in lines]
    fields = dict(filter(None, found))
    if len(fields) != len(found) or "host" not in fields or not _UNUSUAL.isdisjoint(fields):
        return None
    if fields.get("connection", "keep-alive") != "keep-alive" or fields.get("content-type", JSON).lower() not in _TYPES:
        return None
    size = fields.get("content-length", "")
    if not _SIZE.fullmatch(size) or int(size) > MAX_BODY_BYTES:
        return None
    credentials, keys = ((fields[name],) if name in fields else () for name in ("authorization", "idempotency-key"))
    return _Head(path, fields, credentials, keys, int(size))


@functools.lru_cache(maxsize=1024)  # other heads share most of their lines
def _parse_field(line: bytes) -> tuple[str, str] | None:
    match = _FIELD.fullmatch(line)
    return None if match is None else (match[1].decode("ascii").lower(), match[2].decode("ascii"))
