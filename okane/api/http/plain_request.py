"""A plain request for a payment, read at a glance: bytes that every HTTP server reads the same.

What is taken for plain is a small part of RFC 9112's grammar: one whole request and nothing behind it, fields of visible
ASCII that stand once each, none that changes how the rest is read, and a body as long as it says. All else is None, and the
parser's: there is nothing to refuse here, so nothing to get wrong in favour of a client.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import NamedTuple

from okane.api.answer import JSON
from okane.api.payment_creation import MAX_BODY_BYTES, RENDERERS
from okane.api.request_body import CURLS

_MAX_HEAD_BYTES = 4096  # any limit of the parser's is larger
_MAX_FIELDS = 32
_LINES = {f"POST {path} HTTP/1.1".encode(): path for path in RENDERERS}
_FIELD = re.compile(rb"([A-Za-z0-9-]++): ?+([!-~]++(?: ++[!-~]++)*+)")
_KEY = "idempotency-key"
_KEY_NAMES = (b"\r\nIdempotency-Key: ", b"\r\nidempotency-key: ")
_SIZE = re.compile("[1-9][0-9]{0,9}")
_TYPES = frozenset({JSON, f"{JSON}; charset=utf-8", f"{JSON};charset=utf-8", CURLS})

# What says how the rest is to be read, asks for more than an answer, or is what aiohttp's parser refuses by its name.
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
    """One of the paths that make payments, the header fields by their names in lower case, and the body."""

    path: str
    fields: Mapping[str, str]
    body: bytes

    def values(self, name: str) -> tuple[str, ...]:
        """Of the field with this name: none, or the one."""
        value = self.fields.get(name)
        return () if value is None else (value,)


def parse_plain_request(data: bytes) -> PlainRequest | None:
    """What `data` is, if all of it is one plain request."""
    end = data.find(b"\r\n\r\n", 0, _MAX_HEAD_BYTES)
    if end < 0 or not data.startswith(b"POST "):
        return None
    head, key = _without_key(data[:end])
    known = _head(head)
    if known is None:
        return None
    path, fields, size = known
    if key is not None:
        field = _FIELD.fullmatch(key)
        if field is None or _KEY in fields:
            return None
        fields = {**fields, _KEY: field[2].decode("ascii")}
    body = data[end + 4 :]
    return PlainRequest(path, fields, body) if len(body) == size else None


def _without_key(head: bytes) -> tuple[bytes, bytes | None]:
    """A head without its idempotency key, which is what no other request has, and the line of the key: in the spellings that
    clients use. In another it stays where it is."""
    for name in _KEY_NAMES:
        start = head.find(name)
        if start >= 0:
            end = head.find(b"\r\n", start + 2)
            end = len(head) if end < 0 else end
            return head[:start] + head[end:], head[start + 2 : end]
    return head, None


@functools.lru_cache(maxsize=256)  # a client sends the same head again and again
def _head(head: bytes) -> tuple[str, Mapping[str, str], int] | None:
    """Path, fields and the size of the body, if that is a head of a plain request."""
    line, *lines = head.split(b"\r\n")
    path = _LINES.get(line)
    if path is None or len(lines) > _MAX_FIELDS:
        return None
    found = [_field(line) for line in lines]
    fields = dict(filter(None, found))
    if len(fields) != len(found) or "host" not in fields or not _UNUSUAL.isdisjoint(fields):
        return None
    if fields.get("connection", "keep-alive") != "keep-alive" or fields.get("content-type", JSON).lower() not in _TYPES:
        return None
    size = fields.get("content-length", "")
    return (path, fields, int(size)) if _SIZE.fullmatch(size) and int(size) <= MAX_BODY_BYTES else None


@functools.lru_cache(maxsize=1024)  # or most of its lines
def _field(line: bytes) -> tuple[str, str] | None:
    match = _FIELD.fullmatch(line)
    return None if match is None else (match[1].decode("ascii").lower(), match[2].decode("ascii"))
