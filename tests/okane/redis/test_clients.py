from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from okane.redis.buckets import TokenBuckets
from okane.redis.presence import Presence
from streams import Stream, connect
from tests.streams.clients import URL, WRONG_CLIENTS, WRONG_NAMES

STREAM = Stream("never-used")
MADE: Sequence[Callable[[Any], object]] = (
    lambda client: TokenBuckets(client, STREAM),
    lambda client: Presence(client, STREAM),
)
NAMES = ("TokenBuckets", "Presence")


@pytest.mark.parametrize("make", MADE, ids=NAMES)
@pytest.mark.parametrize(("client", "said"), WRONG_CLIENTS, ids=WRONG_NAMES)
def test_a_client_that_could_not_work_is_refused_at_construction(
    make: Callable[[Any], object], client: Callable[[], Any], said: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        make(client())


@pytest.mark.parametrize("make", MADE, ids=NAMES)
def test_redis_pys_own_client_is_taken(make: Callable[[Any], object]) -> None:
    make(Redis.from_url(URL))
    make(connect(URL))
