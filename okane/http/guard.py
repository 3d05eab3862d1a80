"""The guard of connections to URLs that clients have registered: okane must not reach its own network for them (SSRF).

Guarantee: a connection goes to an address that was checked, never to a name: all addresses of a name must pass, one of them
is connected to, and the address at the other end is checked again. Nothing of the environment (proxies) is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Collection, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

import aiohappyeyeballs

from okane.http.connection import HttpConnection
from okane.http.guarded_url import BadUrl, GuardedUrl, parse_url
from okane.http.pool import AddressRefused
from okane.http.public_addresses import Address, is_public, parse_address
from okane.http.resolver import AddressInfo, GetAddressInfo, Resolver, get_address_info
from okane.http.tls import client_context

MAX_TRIED = 8  # of the addresses of a name
_NEXT_ADDRESS_S = 0.25  # without a connection by then, the next address is tried beside it (RFC 8305)
_LOOPBACK = tuple(map(ip_network, ("127.0.0.0/8", "::1/128")))

_NOT_PUBLIC = "has a host whose address is not public: private networks are not called from here"
_REFUSED = "the host has an address that is not public, and private networks are not called from here"

Network = IPv4Network | IPv6Network


class Guard:
    """The rules, and what all guarded connections of a process share: the look-ups of names and the TLS context.

    `allow`: networks that pass although they are not public, and alone may be called by http. `deny_ports`: never called.
    `open_connections`: how many there are now, in all pools.
    """

    def __init__(
        self,
        *,
        allow: Collection[Network] = (),
        deny_ports: Collection[int] = (),
        get_address_info: GetAddressInfo = get_address_info,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.open_connections = 0
        self._allow = tuple(allow)
        self._deny_ports = frozenset(deny_ports)
        self._get_address_info = get_address_info
        self._tls = tls
        self._resolver: Resolver | None = None  # of the loop that connects first

    def parse(self, url: str) -> GuardedUrl:
        """Return the parts of a URL that may be called, as far as it shows without a look-up. Raises BadUrl."""
        parsed = parse_url(url)
        if parsed.port in self._deny_ports:
            raise BadUrl(f"has port {parsed.port}, which is not allowed here")
        if parsed.scheme == "http" and not self._allow:
            raise BadUrl("must begin with https://")
        if parsed.address is not None and not self._passes(parsed, parsed.address):
            raise BadUrl("must begin with https://" if is_public(parsed.address) else _NOT_PUBLIC)
        if _is_localhost(parsed.host) and not self._allows_loopback():
            raise BadUrl(_NOT_PUBLIC)
        return parsed

    def check_url(self, url: str) -> str | None:
        """Return the reason why a URL cannot be registered, or None. Its name is looked up at each connection only."""
        try:
            self.parse(url)
        except BadUrl as error:
            return str(error)
        return None

    async def connect(
        self, url: GuardedUrl, new_connection: Callable[[], HttpConnection], *, owner: str
    ) -> HttpConnection:
        """Connect to a checked address of the URL's host, with TLS for `https`, and return the connection.

        `owner`: the account, whose look-ups have a line of their own. Raises AddressRefused; OSError as `create_connection`
        does. The certificate must be for the URL's host.
        """
        checked = self._checked(url, await self._addresses(url, owner))
        connected = await aiohappyeyeballs.start_connection(
            [info for info, _ in checked[:MAX_TRIED]], happy_eyeballs_delay=_NEXT_ADDRESS_S
        )
        try:
            _check_peer(connected, [address for _, address in checked])
            tls = self._context() if url.scheme == "https" else None
            _, connection = await asyncio.get_running_loop().create_connection(
                new_connection, sock=connected, ssl=tls, server_hostname=None if tls is None else url.host
            )
        except BaseException:
            with contextlib.suppress(OSError):
                connected.close()
            raise
        self.open_connections += 1
        connection.lost.add_done_callback(self._forget_connection)
        return connection

    def _forget_connection(self, _lost: asyncio.Future[None]) -> None:
        self.open_connections -= 1

    async def _addresses(self, url: GuardedUrl, owner: str) -> Sequence[AddressInfo]:
        if self._resolver is None:
            self._resolver = Resolver(self._get_address_info)
        return await self._resolver.resolve(url.host, url.port, owner=owner)

    def _checked(self, url: GuardedUrl, found: Sequence[AddressInfo]) -> Sequence[tuple[AddressInfo, Address]]:
        """Return the addresses of the host. Raises AddressRefused unless each of them passes."""
        checked = []
        for info in found:
            sockaddr = info[4]
            address = parse_address(sockaddr[0])
            if address is None or (len(sockaddr) == 4 and sockaddr[3]) or not self._passes(url, address):
                raise AddressRefused(_REFUSED)
            checked.append((info, address))
        if not checked:
            raise AddressRefused("the host has no address")
        return checked

    def _passes(self, url: GuardedUrl, address: Address) -> bool:
        """Return True if the URL may be called at this address."""
        is_allowed = any(address in network for network in self._allow)
        return is_allowed or (url.scheme == "https" and is_public(address))

    def _allows_loopback(self) -> bool:
        return any(loopback.overlaps(network) for network in self._allow for loopback in _LOOPBACK)

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = client_context()
        return self._tls


def _is_localhost(host: str) -> bool:
    """Return True for the names that are loopback by definition (RFC 6761): no look-up may make them public."""
    return host == "localhost" or host.endswith(".localhost")


def _check_peer(connected: socket.socket, checked: Collection[Address]) -> None:
    if parse_address(connected.getpeername()[0]) not in checked:
        raise AddressRefused("the connection ended at another address than the one that was checked")
