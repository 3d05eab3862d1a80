"""The one place that configures redis-py, translates its errors, and decides how an outage is sat out.

Promise: no command is ever sent twice behind our back, and no loop spins or dies because the server is away.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.connection import HiredisRespSerializer
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.utils import HIREDIS_AVAILABLE

from streams.clock import Clock, pause
from streams.errors import GroupLost, StreamError, StreamUnavailable

log = logging.getLogger("streams")

# Replies that mean "not now": a failover under way, a snapshot being loaded, memory or disk full, slots on the move.
# A script's error carries the original one inside its text (in Redis 6.2 in the middle of it), so the text is searched.
_NOT_NOW = re.compile(r"\b(READONLY|LOADING|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|MISCONF|OOM|BUSY)\b")
_GROUP_LOST = re.compile(r"\b(NOGROUP|UNBLOCKED|no longer exists)\b")
_FIRST_PAUSE = timedelta(milliseconds=50)
_LONGEST_PAUSE = timedelta(seconds=2)


def connect(url: str, *, timeout: timedelta = timedelta(seconds=5)) -> Redis:
    """A client for everything here. `timeout` bounds connecting and each reply; it must exceed the consumer's `block`.

    redis-py's own retries are off: a repeated XADD makes a second entry, a repeated XREADGROUP leaves its first batch
    unread in the pending list. The protocol is pinned because replies change shape with it.
    """
    seconds = timeout.total_seconds()
    pool = _Pool.from_url(
        url,
        protocol=2,
        decode_responses=False,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
    )
    return Redis.from_pool(pool)


class _Pool(ConnectionPool):
    """Has commands packed by hiredis, where it is installed: redis-py's asyncio connections do that in Python, which costs
    ten times as much, and our commands have hundreds of arguments."""

    def make_connection(self) -> Any:
        connection: Any = super().make_connection()  # type: ignore[no-untyped-call]
        if HIREDIS_AVAILABLE:
            connection.pack_command = HiredisRespSerializer().pack
        return connection


@contextmanager
def redis_errors() -> Iterator[None]:
    """Turns redis-py's exceptions into ours, and brings back a cancellation that was lost on the way.

    redis-py sends with `asyncio.wait_for`, which before Python 3.12 swallows a cancellation that comes just as it is done
    (bpo-37658): a cancelled loop would go on for ever.
    """
    task = asyncio.current_task()
    cancellations = task.cancelling() if task is not None else 0
    try:
        yield
        if task is not None and task.cancelling() > cancellations:
            raise asyncio.CancelledError
    except NoScriptError:
        raise  # answered in scripts.py, by sending the script's text
    except (RedisConnectionError, RedisTimeoutError, OSError) as error:
        raise StreamUnavailable(str(error) or type(error).__name__) from error
    except RuntimeError as error:
        if "closed" not in str(error):
            raise
        # uvloop's word for a connection that was lost while redis-py was about to write to it.
        raise StreamUnavailable(str(error)) from error
    except RedisError as error:
        raise translated(error) from error


def translated(error: RedisError | str) -> StreamError:
    """What an error reply means to us."""
    code = getattr(error, "status_code", None) or ""
    text = f"{code} {error}".strip()
    if _GROUP_LOST.search(text):
        return GroupLost(text)
    if _NOT_NOW.search(text):
        return StreamUnavailable(text)
    return StreamError(text)


class Outage:
    """Sits out an outage: grows the pauses, and says once that the server is lost and once that it is back."""

    def __init__(self, client: Redis, duty: str, *, clock: Clock, roll: Callable[[], float]) -> None:
        self._client = client
        self._duty = duty
        self._clock = clock
        self._roll = roll
        self._failures = 0
        self._since = 0.0

    async def endure(self, error: StreamError, stop: asyncio.Event) -> None:
        """Notes that `error` happened and waits before the next try, or until `stop`."""
        if self._failures == 0:
            self._since = self._clock.monotonic()
            log.warning("%s: cannot use Redis now, trying again until it works: %s", self._duty, error)
        self._failures += 1
        if "READONLY" in str(error):
            await self._drop_idle_connections()
        bound = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._failures - 1, 10))
        await pause(self._clock, bound * (0.5 + self._roll() / 2), stop)

    def over(self) -> None:
        """Notes that the server answered."""
        if self._failures:
            log.warning("%s: Redis works again after %.1f s", self._duty, self._clock.monotonic() - self._since)
            self._failures = 0

    async def _drop_idle_connections(self) -> None:
        # After a failover they lead to the old master, which is a replica now; new ones find the new master.
        with redis_errors():
            await self._client.connection_pool.disconnect(inuse_connections=False)
