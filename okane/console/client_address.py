"""The address of the client, the scheme and the host that it used, also behind proxies (`OKANE_CONSOLE_PROXIES`). Pure.

Guarantee: only a proxy that is listed changes any of them. A client that sends `X-Forwarded-For` itself is counted under its
own address.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from aiohttp import web

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
UNKNOWN = "unknown"  # a client without an address: a Unix socket


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from. `address` is that of the client; `is_https` and `host` are as the client used them."""

    address: str
    is_https: bool
    host: str

    def is_own(self, origin: str) -> bool:
        """Tell whether a header `Origin` names the console itself."""
        return origin.lower() == f"{'https' if self.is_https else 'http'}://{self.host.lower()}"


ORIGIN = web.RequestKey("origin", Origin)  # set by the gate


def origin_of(request: web.BaseRequest, proxies: Sequence[Network]) -> Origin:
    """Return where a request came from."""
    peer = _parse(request.remote)
    headers = request.headers
    own_host = headers.get(
        "Host", ""
    )  # of HTTP/1.0 without one aiohttp's `host` is a look-up, for which every page would wait
    if peer is None or not _is_in(peer, proxies):
        return Origin(UNKNOWN if peer is None else str(peer), request.secure, own_host)
    address = peer
    hops = [hop.strip() for field in headers.getall("X-Forwarded-For", ()) for hop in field.split(",")]
    for hop in reversed(hops):
        parsed = _parse(hop)
        if parsed is None:
            break  # of a client that makes it up, or of a proxy that writes no addresses
        address = parsed
        if not _is_in(parsed, proxies):
            break
    scheme = _last(headers.getall("X-Forwarded-Proto", ()))
    host = _last(headers.getall("X-Forwarded-Host", ()))
    return Origin(str(address), scheme.lower() == "https" if scheme else request.secure, host or own_host)


def rate_limit_name(address: str) -> str:
    """Return the name under which attempts to log in are counted: of IPv6 the network, which is one customer's."""
    parsed = _parse(address)
    if isinstance(parsed, IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address


def _parse(text: str | None) -> Address | None:
    try:
        parsed = ipaddress.ip_address(text or "")
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return mapped or parsed


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _last(fields: Sequence[str]) -> str:
    return fields[-1].rpartition(",")[2].strip() if fields else ""
