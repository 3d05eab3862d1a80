"""Refuses requests that a web page makes a browser send to a server without authentication.

Such a server trusts the loopback address, and a browser on the machine reaches that for every page it shows: by a form posted
across sites, or by a name of the page's own that its DNS server points to 127.0.0.1 (DNS rebinding). Browsers give both away
in `Origin`, `Sec-Fetch-Site` (https://www.w3.org/TR/fetch-metadata/) and `Host`; other clients send none of the first two.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import socket
from collections.abc import Sequence, Set
from dataclasses import dataclass
from enum import Enum

_AUTHORITY = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\s:/?#@\[\]]+)(?::(?P<port>[0-9]{1,5}))?")
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#]+)", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_OWN_PAGES = frozenset({"same-origin", "none"})  # "none": a person typed the address


class Refusal(Enum):
    """The reason for which a request is refused."""

    CROSS_SITE = "cross_site_request"
    HOST = "host_not_allowed"


@dataclass(frozen=True, slots=True)
class OriginGuard:
    """Finds requests of pages of other origins. `hosts`: names beside loopback's that `Host` may hold, in lower case; None:
    any, for a server that is reached under names that are not configured."""

    hosts: Set[str] | None = frozenset()

    def refusal(
        self, hosts: Sequence[str], origins: Sequence[str] = (), fetch_sites: Sequence[str] = ()
    ) -> Refusal | None:
        """Judge a request by all values of its fields `Host`, `Origin` and `Sec-Fetch-Site`; None: it may pass."""
        if any(site.strip() not in _OWN_PAGES for site in fetch_sites):
            return Refusal.CROSS_SITE
        if not all(self.allows_host(host) for host in hosts):
            return Refusal.HOST
        if any(not self._is_own(origin, host) for origin in origins for host in (hosts or ("",))):
            return Refusal.CROSS_SITE
        return None

    def allows_host(self, host: str) -> bool:
        """Tell whether `Host` names this machine, or a configured name. Clients without one (HTTP/1.0) are no browsers."""
        if self.hosts is None or not host:
            return True
        name = host_name(host)
        return name is not None and (is_loopback(name) or name in self.hosts)

    def _is_own(self, origin: str, host: str) -> bool:
        """Tell whether a page of `origin` came from this server: from the requested address, or a configured name."""
        match = _ORIGIN.fullmatch(origin)
        page = match and _AUTHORITY.fullmatch(match["authority"])
        if not match or not page:
            return False  # "null" too: a sandboxed frame, a file
        if self.hosts is not None and _canonical(page["name"]) in self.hosts:
            return True
        here = _AUTHORITY.fullmatch(host)
        default = _DEFAULT_PORTS[match["scheme"].lower()]
        return here is not None and (_canonical(page["name"]), int(page["port"] or default)) == (
            _canonical(here["name"]),
            int(here["port"] or default),
        )


@functools.lru_cache(maxsize=256)
def host_name(host: str) -> str | None:
    """Return the name in a `Host` field, without port and brackets, in lower case; None if it is not well-formed."""
    match = _AUTHORITY.fullmatch(host)
    return None if match is None else _canonical(match["name"])


def _canonical(name: str) -> str:
    return name.strip("[]").removesuffix(".").lower()


@functools.lru_cache(maxsize=256)
def is_loopback(name: str) -> bool:
    """Tell whether a name or an address means this machine to every resolver: no DNS server can claim it (RFC 6761, 6.3)."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.IPv6Address(name) if ":" in name else ipaddress.IPv4Address(socket.inet_aton(name))
    except (ValueError, OSError):
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
