"""The address of the primary, asked from Redis Sentinel at each new connection.

Guarantee: no command reaches a server that calls itself a replica. A sentinel can name the old primary for a while after a
failover, so that each new connection asks the server itself (ROLE) before it is used.

Source: Redis docs, "Guidelines for Redis clients with support for Redis Sentinel".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from redis.asyncio import Redis
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from streams.server_url import connection_options, parse_hosts
from streams.url_parts import split_url

SCHEMES: Final = ("redis+sentinel://", "rediss+sentinel://")
SENTINEL_PORT: Final = 26379
PATIENCE_S: Final = 0.25  # with one sentinel, before the next is asked
_CREDENTIALS: Final = {"sentinel_username": "username", "sentinel_password": "password"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SentinelAddress:
    """The parts of a URL: the sentinels to ask, the name of the primary among those that they watch, and redis-py's options
    for connections to the sentinels and to the primary."""

    hosts: tuple[tuple[str, int], ...]
    name: str
    tls: bool
    of_sentinels: Mapping[str, Any] = field(repr=False)
    of_primary: Mapping[str, Any] = field(repr=False)


def parse_sentinel_url(url: str) -> SentinelAddress:
    """Parse `redis+sentinel://[user:password@]host[:port][,host[:port]...]/name[/database]`; with `rediss` both the sentinels
    and the primary are reached by TLS. User and password are the primary's; the sentinels' own are the query parameters
    `sentinel_username` and `sentinel_password`. Raises ValueError."""
    parts = split_url(url)
    name, _, database = unquote(parts.path.strip("/")).partition("/")
    if not name:
        raise ValueError("names no primary: redis+sentinel://host:26379,host:26379/name/0")
    userinfo, _, hosts = parts.netloc.rpartition("@")
    query = parse_qsl(parts.query, keep_blank_values=True)
    of_sentinels = {_CREDENTIALS[key]: value for key, value in query if key in _CREDENTIALS}
    scheme = parts.scheme.partition("+")[0]
    of_primary = connection_options(scheme, userinfo, database, _without_credentials(query))
    tls = {option: value for option, value in of_primary.items() if option.startswith("ssl_")}
    if scheme == "rediss":
        tls["ssl"] = True
    return SentinelAddress(
        hosts=parse_hosts(hosts, port=SENTINEL_PORT),
        name=name,
        tls=scheme == "rediss",
        of_sentinels={**of_sentinels, **tls},
        of_primary=of_primary,
    )


def _without_credentials(query: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(key, value) for key, value in query if key not in _CREDENTIALS]


class Sentinels:
    """The sentinels of one primary. Several new connections at once share one question."""

    def __init__(self, address: SentinelAddress) -> None:
        self._name = address.name
        options = {**address.of_sentinels, "socket_timeout": PATIENCE_S, "socket_connect_timeout": PATIENCE_S}
        self._clients = [
            (f"{host}:{port}", Redis(host=host, port=port, protocol=2, retry=Retry(NoBackoff(), 0), **options))
            for host, port in address.hosts
        ]
        self._asking: asyncio.Task[tuple[str, int]] | None = None

    async def discover_master(self, _: str) -> tuple[str, int]:
        """Return host and port of the primary. Raises redis-py's ConnectionError if no sentinel names one that is up, and its
        AuthenticationError if none lets us in. (The name is the one that redis-py's pool calls.)"""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> tuple[str, int]:
        found: list[str] = []
        forbidden = 0
        for one in tuple(self._clients):
            where, client = one
            try:
                state: Any = await client.sentinel_master(self._name)
            except (RedisError, OSError) as error:
                forbidden += isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError)
                found.append(f"{where}: {error}")
                continue
            if state["is_master"] and not state["is_sdown"] and not state["is_odown"]:
                self._clients = [one, *(other for other in self._clients if other is not one)]  # it is asked first
                return str(state["ip"]), int(state["port"])
            found.append(f"{where}: {state['ip']}:{state['port']} is down")
        kind = AuthenticationError if forbidden == len(found) else RedisConnectionError
        raise kind(f"no sentinel names a primary {self._name!r} that is up: {'; '.join(found)}")

    async def aclose(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
        await asyncio.gather(*(client.aclose() for _, client in self._clients))


class PrimaryConnection(SentinelManagedConnection):
    """A connection to the server that the sentinels name, if it calls itself the primary."""

    # redis-py's own raises at READONLY, which loses the replies to the commands beside that one.
    read_response = Connection.read_response  # type: ignore[assignment] # redis-py's own types differ

    async def connect_to(self, address: tuple[str, int]) -> None:
        """Connect, and ask the server for its role. Raises redis-py's ConnectionError if it is a replica."""
        await super().connect_to(address)  # type: ignore[no-untyped-call] # as above
        role = b""
        try:
            await self.send_command("ROLE", check_health=False)
            role = (await self.read_response())[0]
        finally:
            if role != b"master":
                await self.disconnect(nowait=True)
        if role != b"master":
            raise RedisConnectionError(f"{address[0]}:{address[1]} is not the primary: its role is {role.decode()}")


class PrimaryTlsConnection(PrimaryConnection, SentinelManagedSSLConnection):
    """The same by TLS."""
