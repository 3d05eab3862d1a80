"""Parses the URLs that clients register, and that okane will call: strictly, since parsers that differ can be played off
against each other. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Literal

from yarl import URL

from okane.http.public_addresses import Address, parse_address

MAX_URL_CHARACTERS = 2048
_DEFAULT_PORTS = {"http": 80, "https": 443}

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?")
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]{1,5}))?")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")  # as the last label: C libraries read such a name as an IPv4 address
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_LATIN = re.compile(r"[!-~]*")
_UNSAFE = re.compile(r"[\"<>\\^`{|}]")  # RFC 3986 has none of them in a URL, and parsers differ about them


class BadUrl(ValueError):
    """A URL that is not called. The message says why and repeats nothing of it: a path may be a secret."""


@dataclass(frozen=True, slots=True)
class GuardedUrl:
    """An absolute URL in parts. `host` is a name in ASCII, or an address without brackets; `path` includes the query."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    path: str
    address: Address | None

    @property
    def authority(self) -> str:
        """The value of `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse_url(text: str) -> GuardedUrl:
    """Return the parts of `https://host[:port][/path][?query]`, or of the same with `http`. Raises BadUrl."""
    if len(text) > MAX_URL_CHARACTERS:
        raise BadUrl(f"is longer than {MAX_URL_CHARACTERS} characters")
    match = _URL.match(text)
    scheme = match["scheme"].lower() if match is not None else ""
    if match is None or scheme not in ("http", "https"):
        raise BadUrl("must be an absolute URL like https://example.com/webhooks")
    if match.end() < len(text):
        raise BadUrl("has a fragment (#), which is never sent")
    if "@" in match["authority"]:
        raise BadUrl("has a user or a password in it: requests are authenticated by their signature")
    path = (match["path"] or "/") + (match["query"] or "")
    if not _LATIN.fullmatch(path) or _UNSAFE.search(path) or _BAD_PERCENT.search(path):
        raise BadUrl("has a character in its path or query that is written %XX in a URL")
    authority = _AUTHORITY.fullmatch(match["authority"])
    if authority is None:
        raise BadUrl("has a host or a port that can be none")
    port = int(authority["port"] or _DEFAULT_PORTS[scheme])
    if not 1 <= port <= 65535:
        raise BadUrl("has a port that is no number from 1 to 65535")
    host, address = _parse_host(authority["host"])
    return GuardedUrl("https" if scheme == "https" else "http", host, port, path, address)


def _parse_host(text: str) -> tuple[str, Address | None]:
    """Return a host as it is sent, and the address if it is one. Raises BadUrl."""
    if text.startswith("["):
        address = parse_address(text[1:-1]) if ":" in text else None
        if address is None:
            raise BadUrl("has brackets that hold no IPv6 address (without a zone)")
        # A v4-mapped one is the IPv4 address: `::ffff:127.0.0.1` must not be another name for it.
        return str(address), address
    name = _ascii_name(text).removesuffix(".").lower()
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        address = parse_address(name)
        if not isinstance(address, IPv4Address):
            raise BadUrl("has an IPv4 address that is not written as four decimal numbers")
        return str(address), address
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise BadUrl("has a host that can be none")
    return name, None


def _ascii_name(text: str) -> str:
    """Return an internationalized name in ASCII (`xn--…`). Raises BadUrl."""
    if text.isascii():
        return text
    try:
        encoded = URL.build(scheme="https", host=text).raw_host
    except (ValueError, UnicodeError):
        encoded = None
    if not encoded or not encoded.isascii():
        raise BadUrl("has an internationalized host that has no form in ASCII")
    return encoded
