"""The lean provider speaks the same contract as the product's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from bench.provider import Connection, Till
from okane.providers.base import Approved, NotFound
from okane.providers.okane_http.provider import OkaneHttpProvider
from tests.payments import PAYMENT


@pytest.fixture
async def till() -> Till:
    return Till()


@pytest.fixture
async def client(till: Till) -> AsyncIterator[OkaneHttpProvider]:
    server = await asyncio.get_running_loop().create_server(lambda: Connection(till, 0.0), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with OkaneHttpProvider(f"http://127.0.0.1:{port}", timeout=timedelta(seconds=20)) as one:
        yield one
    server.close()


async def test_it_approves_and_charges_a_key_once(client: OkaneHttpProvider, till: Till) -> None:
    assert isinstance(await client.charge(PAYMENT), Approved)
    assert isinstance(await client.charge(PAYMENT), Approved)
    assert (till.calls, len(till.charges)) == (2, 1)


async def test_it_finds_what_it_charged(client: OkaneHttpProvider) -> None:
    await client.charge(PAYMENT)
    assert isinstance(await client.look_up(PAYMENT), Approved)


async def test_it_knows_nothing_of_other_keys(client: OkaneHttpProvider) -> None:
    await client.charge(PAYMENT)
    assert isinstance(await client.look_up(replace(PAYMENT, provider_key="pk-2")), NotFound)


async def test_a_request_in_pieces_is_one_request(till: Till) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Connection(till, 0.0), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    request = b"POST /charges HTTP/1.1\r\nIdempotency-Key: a\r\nContent-Length: 2\r\n\r\n{}"
    for byte in request:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0)
    assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
    assert list(till.charges) == [b"a"]
    writer.close()
    await writer.wait_closed()
    server.close()
