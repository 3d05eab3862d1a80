"""Text, addresses and JSON from a provider's answer, in the form that a row, a log and a metric can take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import urlsplit

from pydantic_core import from_json

TEXT_LIMIT = 255
URL_LIMIT = 2048


def printable(value: object) -> str:
    """Return `value` as printable text of at most 255 characters, without NUL and lone surrogates."""
    text = (value if isinstance(value, str) else repr(value))[:TEXT_LIMIT]
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def is_page_url(url: str) -> bool:
    """Return True for the address of a page that a customer can open."""
    if len(url) > URL_LIMIT or not url.isascii() or not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("https", "http") and bool(parts.hostname)


def json_object(body: bytes) -> Mapping[str, object] | None:
    """Return the body as a JSON object, or None if it is anything else."""
    try:
        value = from_json(body, allow_inf_nan=False, cache_strings="keys")  # a third of json's time
    except ValueError:
        value = _lenient(body)
    return value if isinstance(value, dict) else None


def _lenient(body: bytes) -> object:
    """Parse what `from_json` refuses and `json` takes: NaN, lone surrogates, UTF-16."""
    try:
        return json.loads(body)
    # RecursionError: a body of 64 kB can nest deeper than the parser goes.
    except (ValueError, RecursionError):
        return None
