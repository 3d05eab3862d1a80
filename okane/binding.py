"""The addresses that a server binds: one, several, or all of both IP families, and how each is written in a URL.

`localhost` is both loopback addresses, whatever the resolver says; `::` is every address of both families. Where the machine
has only one family, these two bind that one.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import re
import socket
from collections.abc import Sequence
from typing import Any

BACKLOG = 1024  # connections that the kernel keeps until a server takes them
LOOPBACKS = ("127.0.0.1", "::1")
EVERY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - recognised here, bound only where an operator sets it

Address = tuple[Any, ...]  # of a socket: host, port, and for IPv6 two more

_BOTH_FAMILIES = {"localhost": LOOPBACKS, "::": ("::", "0.0.0.0")}  # noqa: S104 - as above
_FAMILY_MISSING = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


def is_host(text: str) -> bool:
    """Tell whether a text is a DNS name, or an IPv4 or IPv6 address without brackets."""
    if ":" not in text:
        return re.fullmatch(r"[\w-]{1,63}(?:\.[\w-]{1,63})*\.?", text, re.ASCII) is not None and len(text) < 254
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def hosts(text: str) -> Sequence[str]:
    """Split a setting like `127.0.0.1,[::1]` into hosts without brackets. Raises ValueError for anything else."""
    found = [re.sub(r"^\[(.*:.*)\]$", r"\1", part.strip()) for part in text.split(",")]
    if not all(is_host(host) for host in found):
        raise ValueError("must be host names or addresses without scheme or port, separated by commas")
    return tuple(dict.fromkeys(found))


def checked(text: str) -> str:
    """Return the setting as `hosts` reads it."""
    return ",".join(hosts(text))


def netloc(host: str, port: int) -> str:
    """Return `host:port`, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reached_at(text: str) -> str:
    """Return the host under which this machine reaches a server that is bound to the setting."""
    first = hosts(text)[0]
    return LOOPBACKS[0] if first in EVERY_ADDRESS or first == "localhost" else first


def listen(text: str, port: int, *, share_port: bool = False) -> Sequence[socket.socket]:
    """Bind and listen as `bind` does, for a server: of two processes that start at once, both may bind a port, and the loop
    of the second would find out without an error."""
    return bind(text, port, share_port=share_port, backlog=BACKLOG)


def bind(text: str, port: int, *, share_port: bool = False, backlog: int | None = None) -> Sequence[socket.socket]:
    """Bind every address of the setting at one port; port 0 takes a free one. Listen there too if a `backlog` is given.

    Raises OSError with `host:port` as its `filename`, and leaves nothing bound then. May block while names are resolved.
    """
    bound: list[socket.socket] = []
    with contextlib.ExitStack() as closing:
        for host, required in _expanded(text):
            try:
                for address in _resolved(host, port):
                    taken = bound[0].getsockname()[1] if bound else port
                    bound.append(closing.enter_context(_bound(address, taken, share_port=share_port, backlog=backlog)))
            except OSError as error:
                if required or error.errno not in _FAMILY_MISSING:
                    raise OSError(error.errno, error.strerror, netloc(host, port)) from error
        if not bound:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL), netloc(text, port))
        closing.pop_all()
    return bound


def _expanded(text: str) -> Sequence[tuple[str, bool]]:
    """Return the hosts of a setting, each with whether it is required, without those that `0.0.0.0` or `::` includes."""
    found = {host: False for name in hosts(text) for host in _BOTH_FAMILIES.get(name, ())}
    found |= {name: True for name in hosts(text) if name not in _BOTH_FAMILIES}
    every = {":" in host for host in found if host in EVERY_ADDRESS}
    return [
        (host, required)
        for host, required in found.items()
        if host in EVERY_ADDRESS or not _is_address(host) or (":" in host) not in every
    ]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _resolved(host: str, port: int) -> Sequence[tuple[int, Address]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _bound(where: tuple[int, Address], port: int, *, share_port: bool, backlog: int | None) -> socket.socket:
    family, address = where
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share_port:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own
        one.setblocking(False)
        one.bind((address[0], port, *address[2:]))
        if backlog is not None:
            one.listen(backlog)
    except OSError:
        one.close()
        raise
    return one
