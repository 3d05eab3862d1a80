"""The receiver of torture notes what it got before it answers, and fails in the ways that it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from okane.local.ports import LOOPBACK, free_port
from torture.receiver.journal import Arrival, ReceiverJournal, read_arrivals
from torture.receiver.server import serve

CLIENT_TIMEOUT = aiohttp.ClientTimeout(total=20)


@contextlib.asynccontextmanager
async def receiver(journal: Path) -> AsyncIterator[str]:
    """Serve a receiver inside the block, and yield its URL."""
    port, stop = free_port(), asyncio.Event()
    serving = asyncio.create_task(serve(port=port, journal=journal, seed=1, stop=stop))
    try:
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection(LOOPBACK, port)
                    writer.close()
                    break
        yield f"http://{LOOPBACK}:{port}"
    finally:
        stop.set()
        await serving


async def behave(http: aiohttp.ClientSession, url: str, path: str, act: str) -> int:
    async with http.put(f"{url}/control", json={path: {"act": act}}) as answer:
        return answer.status


async def post(http: aiohttp.ClientSession, url: str, body: str = "{}") -> int:
    """Return the status of the answer, 0 if there was none."""
    try:
        async with http.post(url, data=body, headers={"webhook-id": "evt_1"}, allow_redirects=False) as answer:
            return answer.status
    except aiohttp.ClientError:
        return 0


async def ended(journal: Path, count: int) -> list[Arrival]:
    """Wait for the ends of so many requests, and return them."""
    async with asyncio.timeout(20):
        while True:
            found = [one for one in read_arrivals(journal) if one.ended_s != float("inf")]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.01)


async def test_a_request_is_kept_as_it_was_sent(tmp_path: Path) -> None:
    body = json.dumps({"name": "Zoë"}, ensure_ascii=False)
    async with receiver(tmp_path / "journal") as url, aiohttp.ClientSession(timeout=CLIENT_TIMEOUT) as http:
        assert await post(http, f"{url}/all/1", body) == 200
        assert await post(http, f"{url}/all/2") == 200  # on the same connection
    first, second = read_arrivals(tmp_path / "journal")
    assert (first.path, first.body, first.headers["webhook-id"], first.accepted) == ("/all/1", body, "evt_1", True)
    assert first.began_s <= first.ended_s <= second.began_s


@pytest.mark.parametrize(
    ("act", "status", "accepted"),
    [
        ("slow", 200, True),
        ("refuse", 500, False),
        ("limit", 429, False),
        ("redirect", 302, False),
        ("gone", 410, False),
        ("hang_up", 0, False),
        ("half_head", 0, False),
        ("half_body", 200, True),
    ],
)
async def test_the_journal_tells_what_was_answered(tmp_path: Path, act: str, status: int, accepted: bool) -> None:
    async with receiver(tmp_path / "journal") as url, aiohttp.ClientSession(timeout=CLIENT_TIMEOUT) as http:
        assert await behave(http, url, "/all/1", act) == 200
        assert await post(http, f"{url}/all/1") == status
        assert await post(http, f"{url}/other/1") == 200
    first, other = read_arrivals(tmp_path / "journal")
    assert (first.path, first.status, first.accepted) == ("/all/1", status, accepted)
    assert other.accepted


async def test_a_sender_that_hangs_up_ends_its_request(tmp_path: Path) -> None:
    async with receiver(tmp_path / "journal") as url, aiohttp.ClientSession(timeout=CLIENT_TIMEOUT) as http:
        await behave(http, url, "*", "silent")
        sending = asyncio.create_task(post(http, f"{url}/all/1"))
        async with asyncio.timeout(20):
            while not list(read_arrivals(tmp_path / "journal")):
                await asyncio.sleep(0.01)
        sending.cancel()
        [one] = await ended(tmp_path / "journal", 1)
    assert (one.status, one.accepted) == (0, False)


async def test_behaviours_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    async with receiver(tmp_path / "journal") as url, aiohttp.ClientSession(timeout=CLIENT_TIMEOUT) as http:
        assert await behave(http, url, "*", "explode") == 400
        async with http.put(f"{url}/control", data=b"nonsense") as answer:
            assert answer.status == 400
        assert await post(http, f"{url}/all/1") == 200


def test_a_kill_loses_no_line_but_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    first = ReceiverJournal(path, life="a", born_s=0.0)
    number = first.begin(path="/all/1", headers={}, body="{}", began_s=1.0)
    first.end(number, status=200, at_s=2.0)
    first.begin(path="/all/2", headers={}, body="{}", began_s=3.0)  # in hand when it dies
    first.close()
    with path.open("ab") as file:
        file.write(b'{"request": "a-3", "pa')
    second = ReceiverJournal(path, life="b", born_s=4.0)
    second.end(second.begin(path="/all/3", headers={}, body="{}", began_s=5.0), status=500, at_s=6.0)
    second.begin(path="/all/4", headers={}, body="{}", began_s=7.0)
    second.close()
    assert [(one.path, one.status, one.ended_s) for one in read_arrivals(path)] == [
        ("/all/1", 200, 2.0),
        ("/all/2", 0, 4.0),
        ("/all/3", 500, 6.0),
        ("/all/4", 0, float("inf")),
    ]
