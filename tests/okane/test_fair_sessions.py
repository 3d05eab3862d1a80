"""The reads of one account delay no other account, and only a bounded number of them waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, cast

import pytest

from okane.api.access import KeyAccess
from okane.api_key import Mode
from okane.errors import AccountBusy
from okane.store import ApiKeyStore
from okane.store.fair_sessions import FairSessions
from okane.store.session import Session
from tests.okane.api_keys import ask, bearer, make, pay
from tests.okane.served_api import Api, serve_api

# More payments of an account than a page may read: a filter without a match has the largest cost of a page.
FILL = """
INSERT INTO payments
    (id, account_id, idempotency_key, fingerprint, amount_minor, currency, lane, status, provider_key, metadata)
SELECT gen_random_uuid(), 'acme', 'k' || n, decode('00', 'hex'), 440, 'USD', 'low', 'pending', 'p' || n, '{"a": "b"}'
FROM generate_series(1, 20000) AS n RETURNING 1
"""
COSTLY = "/v1/payments?limit=100&metadata[a]=c&provider=unused"


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[ApiKeyStore]:
    store = ApiKeyStore(database_url, timeout=timedelta(seconds=3))
    yield store
    await store.aclose()


@pytest.fixture
async def api(database_url: str, redis_url: str, store: ApiKeyStore) -> AsyncIterator[Api]:
    async for one in serve_api(database_url, redis_url, KeyAccess(store, mode=Mode.TEST)):
        yield one


def sessions(count: int, **options: int) -> FairSessions[Session]:
    return FairSessions([cast("Session", f"session {number}") for number in range(count)], **options)


class Reads:
    """Reads that begin when they get a session and end when the test ends them."""

    def __init__(self, fair: FairSessions[Session]) -> None:
        self.fair = fair
        self.begun: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self, *names: str) -> None:
        """Start reads; the first letter of each is its account."""
        for name in names:
            self.ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._read(name))
        await self.settled()

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await self.tasks[name]
        await self.settled()

    async def settled(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def _read(self, name: str) -> None:
        async with self.fair.lend(name[0]):
            self.begun.append(name)
            await self.ends[name].wait()


async def test_one_account_leaves_a_connection_to_the_others() -> None:
    reads = Reads(sessions(3))
    await reads.start("a1", "a2", "a3", "a4")
    assert reads.begun == ["a1", "a2"]
    await reads.start("b1")
    assert reads.begun == ["a1", "a2", "b1"]


async def test_accounts_have_turns_however_many_reads_each_has() -> None:
    reads = Reads(sessions(2))
    await reads.start("a1", "b1", "a2", "a3", "a4", "b2", "c1", "c2")
    for name in ("a1", "b1", "a2", "b2", "c1", "a3", "c2", "a4"):
        await reads.end(name)
    assert reads.begun == ["a1", "b1", "a2", "b2", "c1", "a3", "c2", "a4"]


async def test_so_many_reads_of_an_account_wait_and_the_next_is_refused() -> None:
    reads = Reads(sessions(2, max_waiting=3))
    await reads.start("a1", "a2", "a3", "a4")
    with pytest.raises(AccountBusy):
        async with reads.fair.lend("a"):
            raise AssertionError
    await reads.start("b1")
    assert reads.begun == ["a1", "b1"]
    await reads.end("a1")
    await reads.start("a5")
    assert reads.begun == ["a1", "b1", "a2"]


async def test_a_waiting_read_that_is_cancelled_gives_its_turn_to_the_next() -> None:
    reads = Reads(sessions(2))
    await reads.start("a1", "a2", "a3")
    reads.tasks["a2"].cancel()
    await reads.settled()
    await reads.end("a1")
    assert reads.begun == ["a1", "a3"]
    await reads.end("a3")
    assert_all_free(reads.fair)


async def test_a_read_that_is_cancelled_when_its_turn_has_come_gives_it_to_the_next() -> None:
    reads = Reads(sessions(2))
    async with reads.fair.lend("a"):
        await reads.start("a2", "a3")
    reads.tasks["a2"].cancel()  # it was granted the session at the end of the block, and does not run before this
    await reads.settled()
    assert reads.begun == ["a3"]
    await reads.end("a3")
    assert_all_free(reads.fair)


def assert_all_free(fair: FairSessions[Session]) -> None:
    assert (fair._waiting, fair._running, len(fair._free)) == ({}, {}, 2)


async def test_a_flood_of_costly_lists_keeps_another_account_waiting_for_a_few_of_them(
    api: Api, store: ApiKeyStore
) -> None:
    flooding, other = await make(store, "acme"), await make(store, "globex")
    _, said = await pay(api, other)
    await api.store._rare.fetch(FILL)
    path = f"/v1/payments/{said['payment']['id']}"
    floods = [asyncio.create_task(ask(api, "GET", COSTLY, bearer(flooding))) for _ in range(60)]
    await asyncio.wait(floods, return_when=asyncio.FIRST_COMPLETED)
    before = sum(one.done() for one in floods)
    asked = ("/v1/payments", f"{path}/events", f"{path}/attempts", path, "/v1/dead-letters")
    answers = await asyncio.gather(*(ask(api, "GET", one, bearer(other)) for one in asked))
    assert [response.status for response, _ in answers] == [200] * len(asked)
    assert sum(one.done() for one in floods) - before <= 20  # all sixty, if each waited for the earlier ones
    assert {response.status for response, _ in await asyncio.gather(*floods)} == {200}


async def test_more_lists_than_may_wait_are_refused_at_once_and_told_when_to_come_again(
    api: Api, store: ApiKeyStore
) -> None:
    flooding = await make(store, "acme")
    await api.store._rare.fetch(FILL)
    answers: list[tuple[Any, Any]] = await asyncio.gather(
        *(ask(api, "GET", COSTLY, bearer(flooding)) for _ in range(95))
    )
    refused = [(response, said) for response, said in answers if response.status != 200]
    assert refused
    for response, said in refused:
        assert (response.status, said["code"], said["retryable"]) == (429, "too_many_reads", True)
        assert response.headers["Retry-After"] == "1"
    assert (await ask(api, "GET", "/v1/payments", bearer(flooding)))[0].status == 200


async def test_a_read_that_is_given_up_as_a_connection_becomes_free_ends_as_any_other() -> None:
    """Its client disconnects, or its time-out passes, in the same turn of the loop."""
    reads = Reads(sessions(1))
    async with reads.fair.lend("a"):
        await reads.start("a2", "b1", "b2")
        reads.tasks["a2"].cancel()
        reads.tasks["b1"].cancel()
    given_up = await asyncio.gather(reads.tasks["a2"], reads.tasks["b1"], return_exceptions=True)
    assert [type(one) for one in given_up] == [asyncio.CancelledError] * 2
    await reads.settled()
    assert reads.begun == ["b2"]
    await reads.end("b2")
    assert (reads.fair._waiting, reads.fair._running, len(reads.fair._free)) == ({}, {}, 1)
