"""Tests of endpoints: how many an account may run, and their end when the endpoint is disabled or deleted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from okane.api.access import KeyAccess
from okane.api_key import Mode
from okane.store import ApiKeyStore
from okane.webhooks import endpoint_tests
from tests.okane.api_keys import ask, bearer, make, store
from tests.okane.served_api import Api, serve_api
from tests.okane.webhook_rows import fetch

FIXTURES = (store,)
PATH = "/v1/webhook-endpoints"


class SilentServer:
    """A server that takes requests and answers none of them."""

    def __init__(self) -> None:
        self.url = ""
        self.taken = 0
        self.open = 0

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            if await reader.readline():
                self.taken += 1
                while await reader.read(65536):
                    pass
        finally:
            self.open -= 1
            writer.close()

    async def has(self, *, taken: int, open_: int) -> None:
        """Wait until so many requests have come, and so many connections are open."""
        async with asyncio.timeout(20):
            while (self.taken, self.open) != (taken, open_):
                await asyncio.sleep(0.01)


@pytest.fixture
async def silent() -> AsyncIterator[SilentServer]:
    one = SilentServer()
    server = await asyncio.start_server(one.take, "127.0.0.1", 0)
    one.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield one
    server.close()


async def create(api: Api, url: str, headers: dict[str, str]) -> str:
    response, said = await ask(api, "POST", PATH, headers, json.dumps({"url": url, "timeout_s": 30}))
    assert response.status == 201, said
    return f"{PATH}/{said['endpoint']['id']}"


async def test_an_account_has_a_few_tests_at_a_time_and_takes_none_of_another(
    silent: SilentServer, database_url: str, redis_url: str, store: ApiKeyStore
) -> None:
    async for api in serve_api(database_url, redis_url, KeyAccess(store, mode=Mode.TEST)):
        ours, theirs = bearer(await make(store, "acme")), bearer(await make(store, "globex"))
        paths = [await create(api, silent.url, ours) for _ in range(endpoint_tests.MAX_OF_ACCOUNT + 1)]
        other = await create(api, silent.url, theirs)
        running = [asyncio.create_task(ask(api, "POST", f"{path}/test", ours)) for path in paths[:-1]]
        await silent.has(taken=4, open_=4)
        response, said = await ask(api, "POST", f"{paths[-1]}/test", ours)
        assert (response.status, said["code"], response.headers["Retry-After"]) == (429, "too_many_tests", "1")
        running.append(asyncio.create_task(ask(api, "POST", f"{other}/test", theirs)))
        await silent.has(taken=5, open_=5)
        for path in paths:
            assert (await ask(api, "DELETE", path, ours))[0].status == 204
        assert (await ask(api, "POST", f"{other}/disable", theirs))[0].status == 200
        await silent.has(taken=5, open_=0)
        for response, said in await asyncio.gather(*running):
            assert (response.status, said["outcome"], "disabled or deleted" in said["reason"]) == (200, "connect", True)
        again = asyncio.create_task(ask(api, "POST", f"{other}/test", theirs))  # also while it is disabled
        await silent.has(taken=6, open_=1)
        assert (await ask(api, "DELETE", other, theirs))[0].status == 204
        assert (await again)[1]["outcome"] == "connect"


@pytest.mark.parametrize("status", ["disabled", "deleted"])
async def test_a_test_ends_when_another_process_has_stopped_its_endpoint(
    api: Api, silent: SilentServer, database_url: str, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_tests, "LOOK_EVERY_S", 0.02)
    path = await create(api, silent.url, {})
    running = asyncio.create_task(ask(api, "POST", f"{path}/test", {}))
    await silent.has(taken=1, open_=1)
    await fetch(database_url, "UPDATE webhook_endpoints SET status = %s, version = version + 1", status)
    assert (await running)[1]["outcome"] == "connect"
    await silent.has(taken=1, open_=0)
