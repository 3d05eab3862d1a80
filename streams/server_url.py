"""Parses the parts of a URL that names several servers. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import SplitResult, urlencode, urlsplit

from redis.asyncio.connection import parse_url

Host = tuple[str, int]


def parse_hosts(text: str, *, port: int) -> tuple[Host, ...]:
    """Return host and port of each server in `host[:port][,host[:port]...]`. `port` is the default. Raises ValueError."""
    return tuple(_host_and_port(one, port) for one in text.split(","))


def connection_options(scheme: str, userinfo: str, database: str, query: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return redis-py's options for connections to any of the servers: a URL of one server has the same, and its address."""
    at = "@" if userinfo else ""
    plain = SplitResult(scheme, f"{userinfo}{at}server", f"/{database}", urlencode(list(query)), "")
    options: dict[str, Any] = dict(parse_url(plain.geturl()))
    for option in ("host", "connection_class"):
        options.pop(option, None)
    return options


def _host_and_port(text: str, port: int) -> Host:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("names no host")
    return parts.hostname, parts.port or port
