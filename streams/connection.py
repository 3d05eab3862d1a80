"""The configuration of redis-py, the translation of its errors, and the pauses during an outage.

Guarantees: redis-py repeats no command by itself, and no loop spins or ends because the server is away.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec, TypeAlias, TypeVar

import redis
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from streams.clock import Clock, pause
from streams.cluster import ClusterClient, ClusterPool
from streams.errors import CommandRejected, GroupLost, StreamError, StreamForbidden, StreamRefused, StreamUnavailable
from streams.pool import Command, Pool, code_of, is_bad_certificate, is_elsewhere
from streams.sentinel import SCHEMES as SENTINEL_SCHEMES
from streams.sentinel import PrimaryConnection, PrimaryTlsConnection, Sentinels, parse_sentinel_url
from streams.slots import SCHEMES as CLUSTER_SCHEMES

log = logging.getLogger("streams")

RedisClient: TypeAlias = Redis  # for callers that pass a client on, and need not import redis for that
P = ParamSpec("P")
T = TypeVar("T")

# Every error reply means that the server cannot be used now; these codes tell the kinds apart. A failover, a snapshot being
# loaded, a full memory or disk, and too many clients end by themselves; missing rights and wrong credentials do not.
_NOT_NOW = re.compile(
    r"READONLY|LOADING|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|MISCONF|OOM|BUSY|UNKILLABLE|NOMASTERLINK|IOERR|INPROG"
)
_FORBIDDEN = re.compile(r"NOAUTH|NOPERM|WRONGPASS|DENIED")
_GROUP_LOST = re.compile(r"NOGROUP|UNBLOCKED")
_NO_ACL = ("ACL failure", "The user executing the script")  # the texts of script errors for it, under the code ERR
_ADVICE = "make one with streams.connect"
_FIRST_PAUSE = timedelta(milliseconds=50)
_LONGEST_PAUSE = timedelta(seconds=2)


def connect(url: str, *, timeout: timedelta = timedelta(seconds=5)) -> Redis:
    """Return a client for all parts. `timeout` bounds connecting and each reply; it must exceed the consumer's `block`.

    `url` is redis-py's, `redis://`, `rediss://` or `unix://`, or names sentinels, which are asked for the primary at each new
    connection (see `streams.sentinel`), or nodes of a cluster (see `streams.cluster`).

    redis-py's retries are off: a repeated XADD makes a second entry, and a repeated XREADGROUP leaves its first batch unread
    in the pending list. The protocol is pinned because the shape of replies depends on it.
    """
    seconds = timeout.total_seconds()
    options: dict[str, Any] = {
        "protocol": 2,
        "decode_responses": False,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
    }
    if url.startswith(CLUSTER_SCHEMES):
        return ClusterClient.from_pool(ClusterPool(url, options))
    pool = _SentinelPool.of(url, options) if url.startswith(SENTINEL_SCHEMES) else Pool.from_url(url, **options)
    return Redis.from_pool(pool)


def checked_client(client: Redis) -> Redis:
    """Return the client if the library can work with it: redis-py's, asynchronous, for one server, with replies as bytes
    in the shapes of RESP2. Raises TypeError or ValueError."""
    given: Any = client
    if isinstance(given, redis.Redis | redis.RedisCluster):
        raise TypeError(f"a synchronous client ({type(given).__name__}) would block the event loop: {_ADVICE}")
    if isinstance(given, RedisCluster):
        raise TypeError(f"redis-py's client of a cluster is not supported: {_ADVICE}, of redis+cluster://host:port")
    if isinstance(given, Pipeline):
        raise TypeError("a pipeline is not a client: give the client that it was made by")
    options = getattr(getattr(given, "connection_pool", None), "connection_kwargs", None)
    if options is None or not hasattr(given, "execute_command"):
        raise TypeError(
            f"a client of redis.asyncio is needed, not {type(given).__module__}.{type(given).__qualname__}: {_ADVICE}"
        )
    if options.get("decode_responses"):
        raise ValueError(f"a client with decode_responses=True cannot be used, bodies are bytes: {_ADVICE}")
    if options.get("protocol") in (3, "3"):
        raise ValueError(f"a client with protocol=3 cannot be used, its replies have another shape: {_ADVICE}")
    return client


class _SentinelPool(Pool, SentinelConnectionPool):
    """Connections to the primary that the sentinels name."""

    sentinel_manager: Sentinels

    @classmethod
    def of(cls, url: str, options: Mapping[str, Any]) -> _SentinelPool:
        address = parse_sentinel_url(url)
        connection = PrimaryTlsConnection if address.tls else PrimaryConnection
        return cls(address.name, Sentinels(address), connection_class=connection, **{**address.of_primary, **options})

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        if inuse_connections:
            await self.sentinel_manager.aclose()


async def replies(client: Redis, commands: Sequence[Command]) -> list[Any]:
    """Send the commands in one round trip; return the raw reply to each, which may be a `ResponseError`. A client of
    `connect` needs some 0.6 of redis-py's CPU for it.

    Raises redis-py's errors when there is no answer; some of the commands may have been executed then.
    """
    pool = client.connection_pool
    if isinstance(pool, Pool):
        return await pool.replies(commands)
    async with client.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command)
        answers: list[Any] = await pipe.execute(raise_on_error=False)
    return answers


@contextmanager
def redis_errors() -> Iterator[None]:
    """Translate redis-py's exceptions into those of this library, and raise a cancellation that redis-py swallowed. Surround
    the reading of a reply as well: a reply of the wrong shape, from a proxy or another kind of server, is a refusal.

    redis-py sends with `asyncio.wait_for`, which before Python 3.12 swallows a cancellation that comes as it ends
    (bpo-37658): a cancelled loop would never end.
    """
    task = asyncio.current_task()
    cancellations = task.cancelling() if task is not None else 0
    try:
        yield
        if task is not None and task.cancelling() > cancellations:
            raise asyncio.CancelledError
    except RedisError as error:
        raise translated(error) from error
    except OSError as error:
        raise StreamUnavailable(str(error) or type(error).__name__) from error
    except RuntimeError as error:
        if "closed" not in str(error):
            raise
        # uvloop raises it when the connection is lost just before redis-py writes.
        raise StreamUnavailable(str(error)) from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise CommandRejected(f"an answer that cannot be read: {type(error).__name__}: {error}") from error


def translating(call: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Decorate a call with `redis_errors`, the reading of its replies included."""

    @wraps(call)
    async def translating_call(*args: P.args, **kwargs: P.kwargs) -> T:
        with redis_errors():
            return await call(*args, **kwargs)

    return translating_call


def translated(error: RedisError | str) -> StreamError:
    """Return the StreamError for an error of redis-py. Each of them means that the server cannot be used now."""
    code = getattr(error, "status_code", None) or ""
    text = f"{code} {error}".strip() or type(error).__name__
    if isinstance(error, AuthenticationError | AuthorizationError):
        return StreamForbidden(text)
    if isinstance(error, RedisConnectionError | RedisTimeoutError):
        return StreamForbidden(text) if is_bad_certificate(error) else StreamUnavailable(text)
    code = code_of(text)
    if _GROUP_LOST.fullmatch(code) or "no longer exists" in text:
        return GroupLost(text)
    if _FORBIDDEN.fullmatch(code) or any(words in text for words in _NO_ACL):
        return StreamForbidden(text)
    if _NOT_NOW.fullmatch(code):
        return StreamUnavailable(text)
    if code in ("", "ERR") and "unknown" not in text.lower():
        return CommandRejected(text)
    return StreamRefused(text)


class Outage:
    """The pauses between tries during an outage. They grow; its begin and its end are logged once each."""

    def __init__(self, client: Redis, duty: str, *, clock: Clock, roll: Callable[[], float]) -> None:
        self._client = client
        self._duty = duty
        self._clock = clock
        self._roll = roll
        self._failures = 0
        self._since = 0.0

    async def wait(self, error: StreamError, stop: asyncio.Event) -> None:
        """Record `error`, and wait before the next try, or until `stop`."""
        if self._failures == 0:
            self._since = self._clock.monotonic()
            log.warning("%s: cannot use Redis now, trying again until it works: %s", self._duty, error)
        self._failures += 1
        if is_elsewhere(error):
            await self._drop_idle_connections()
        bound = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._failures - 1, 10))
        await pause(self._clock, bound * (0.5 + self._roll() / 2), stop)

    @property
    def duration(self) -> timedelta:
        """The duration of the current outage; zero while there is none."""
        return timedelta(seconds=self._clock.monotonic() - self._since if self._failures else 0.0)

    def end(self) -> None:
        """End the outage: the server has answered."""
        if self._failures:
            log.warning("%s: Redis works again after %.1f s", self._duty, self._clock.monotonic() - self._since)
            self._failures = 0

    async def _drop_idle_connections(self) -> None:
        # After a failover they lead to the old master, which is a replica now; new ones reach the new master. In a cluster
        # the address may stand for several nodes.
        with suppress(StreamError), redis_errors():
            await self._client.connection_pool.disconnect(inuse_connections=False)
