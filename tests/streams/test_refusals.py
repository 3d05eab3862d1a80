"""A server that refuses: every error is an outage, ends no loop, and has a duration."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from streams import (
    Delayed,
    Inspector,
    Janitor,
    Producer,
    Stream,
    StreamError,
    StreamForbidden,
    StreamRefused,
    StreamUnavailable,
    connect,
)
from streams.errors import GroupLost
from tests.streams.conftest import Connected, until
from tests.streams.refusals import GARBAGE, REPLIES
from tests.streams.running import GROUP, Running, consumer, done
from tests.streams.servers import RefusingServer, Server, cluster_options
from tests.streams.waiting import RecordingHandler


@pytest.mark.parametrize("text", REPLIES)
async def test_every_error_reply_is_an_outage_of_its_kind(text: str, stream: Stream) -> None:
    async with RefusingServer(f"-{text}") as server, connect(server.url) as client:
        for call in (
            Producer(client, stream).check,
            lambda: Producer(client, stream).publish(b"x"),
            consumer(client, stream, done).run_once,
            Delayed(client, stream).run_once,
        ):
            with pytest.raises(StreamError) as raised:
                await call()
            assert type(raised.value) is REPLIES[text]
            assert isinstance(raised.value, StreamUnavailable | GroupLost)
        with pytest.raises(StreamError):  # a missing group counts as empty, a missing clock does not
            await Inspector(client, stream, group=GROUP).stats()


def test_the_table_has_every_code_that_the_servers_here_may_send() -> None:
    """The codes are from the strings of the programs, which begin with `-CODE `."""
    known = {text.split()[0] for text in REPLIES}
    for binary in (str(Server.binary()), shutil.which("redis-server")):
        strings = shutil.which("strings")
        if binary is None or strings is None:
            continue
        found = subprocess.run([strings, "-n", "4", binary], capture_output=True, text=True, check=True).stdout
        codes = {line[1:].split()[0] for line in found.splitlines() if _is_error(line)}
        assert codes <= known, binary


def _is_error(line: str) -> bool:
    word, _, rest = line[1:].partition(" ")
    return line.startswith("-") and len(word) > 2 and word.isalpha() and word.isupper() and bool(rest)


@pytest.mark.parametrize("reply", GARBAGE)
async def test_an_answer_that_cannot_be_read_is_an_outage_and_ends_nothing(reply: str, stream: Stream) -> None:
    async with RefusingServer(reply) as server, connect(server.url, timeout=timedelta(seconds=0.3)) as client:
        with pytest.raises(StreamUnavailable):
            await Producer(client, stream).check()
        with pytest.raises(StreamUnavailable):
            await Producer(client, stream).publish(b"x")
        with pytest.raises(StreamUnavailable):
            await Inspector(client, stream, group=GROUP).stats()
        stop = asyncio.Event()
        every = timedelta(milliseconds=10)
        loops = [
            asyncio.create_task(loop.run(stop))
            for loop in (
                Delayed(client, stream, poll=every),
                Janitor(client, stream, group=GROUP, every=every),
                consumer(client, stream, done),
            )
        ]
        await asyncio.sleep(0.1)
        assert not any(loop.done() for loop in loops)
        stop.set()
        await asyncio.gather(*loops)


@pytest.mark.parametrize("refused", ["xreadgroup", "xack", "xdel", "xautoclaim", "xgroup"])
async def test_a_consumer_without_rights_reports_for_how_long_and_continues_when_it_has_them(
    refused: str, own_server: Callable[..., Server], stream: Stream
) -> None:
    server = own_server()
    handler = RecordingHandler()
    async with connect(server.url) as admin, connect(server.as_user("worker", "secret")) as client:
        await admin.acl_setuser("worker", enabled=True, passwords=["+secret"], keys=["*"], categories=["+@all"])
        await admin.acl_setuser("worker", enabled=True, commands=[f"-{refused}"])
        worker = consumer(client, stream, handler, reclaim_every=timedelta(milliseconds=20))
        async with Running(worker):
            await Producer(client, stream).publish(b"x")  # which it may

            async def unable() -> bool:
                return worker.unable_for > timedelta(milliseconds=200)

            await until(unable)
            await admin.acl_setuser("worker", enabled=True, commands=[f"+{refused}"])
            await handler.wait_for(b"x")

            async def acked() -> bool:
                stats = await Inspector(admin, stream, group=GROUP).stats()
                return not stats.pending and not stats.depth and not worker.unable_for

            await until(acked)


async def test_a_consumer_is_not_unable_because_its_handlers_take_long(client: Redis, stream: Stream) -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    async def slow(message: object) -> object:
        entered.set()
        await release.wait()
        return await done(message)  # type: ignore[arg-type] # a Message

    worker = consumer(client, stream, slow, concurrency=1)
    async with Running(worker):
        await Producer(client, stream).publish(b"x")
        await entered.wait()
        await asyncio.sleep(0.2)
        assert worker.unable_for == timedelta(0)
        release.set()


async def test_delayed_messages_that_cannot_be_moved_are_known_and_move_when_they_can(
    client: Redis, stream: Stream
) -> None:
    await client.set(stream.delayed_key, "no sorted set")
    delayed, stop = Delayed(client, stream, poll=timedelta(milliseconds=10)), asyncio.Event()
    running = asyncio.create_task(delayed.run(stop))

    async def unable() -> bool:
        return delayed.unable_for > timedelta(milliseconds=50)

    async def able() -> bool:
        return not delayed.unable_for

    await until(unable)
    await client.delete(stream.delayed_key)
    await until(able)
    stop.set()
    await running


async def test_a_connection_that_hears_of_another_node_is_not_used_again(
    own_server: Callable[..., Server], stream: Stream
) -> None:
    """The address may lead to the right node the next time, as after a failover."""
    async with connect(own_server(*cluster_options()).url) as client:
        number = await client.client_id()
        with pytest.raises(StreamUnavailable, match="CLUSTERDOWN"):  # no node owns the slot
            await Producer(client, stream).publish(b"x")
        assert await client.client_id() != number


@pytest.mark.parametrize("password", ["wrong", ""])
async def test_wrong_credentials_are_distinguished_from_an_outage_and_not_repeated(
    password: str, own_server: Callable[..., Server], stream: Stream
) -> None:
    server = own_server("--requirepass", "right-password")
    async with connect(server.as_user("default", password)) as client:
        with pytest.raises(StreamForbidden) as raised:
            await Producer(client, stream).check()
    assert "right-password" not in str(raised.value)
    assert "NOAUTH" in str(raised.value) or "WRONGPASS" in str(raised.value)


async def test_the_check_adds_nothing_and_finds_what_publishing_would(
    own_server: Callable[..., Server], connected: Connected, stream: Stream
) -> None:
    client = connected(own_server())
    await Producer(client, stream).check()
    assert await client.keys() == []
    await client.config_set("maxmemory", 1)
    with pytest.raises(StreamUnavailable, match="OOM"):
        await Producer(client, stream).check()
    await client.config_set("maxmemory", 0)
    await client.set(stream.lane_key("low"), "not a stream")
    with pytest.raises(StreamUnavailable, match="WRONGTYPE"):
        await Inspector(client, stream, group=GROUP).stats()
    with pytest.raises(StreamRefused):
        await Producer(client, stream).publish(b"x", lane="low")
    with pytest.raises(RedisError):
        await client.xlen(stream.lane_key("low"))


async def test_a_certificate_that_does_not_verify_is_distinguished_from_an_outage(
    tmp_path: Path, stream: Stream
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    request = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=elsewhere",
        "-keyout",
    ]
    subprocess.run([*request, str(key), "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    for query in ("", f"?ssl_ca_certs={tmp_path}/missing.pem"):
        async with connect(f"rediss://127.0.0.1:{port}{query}") as client:
            with pytest.raises(StreamForbidden):
                await Producer(client, stream).check()
    async with connect(f"rediss://127.0.0.1:{port}?ssl_cert_reqs=none") as client:
        with pytest.raises(StreamUnavailable) as raised:
            await Producer(client, stream).check()
        assert not isinstance(raised.value, StreamForbidden), "it hung up: that may be a restart"
    server.close()
    await server.wait_closed()
    async with connect("unix:///nowhere/redis.sock") as client:
        with pytest.raises(StreamUnavailable) as raised:
            await Producer(client, stream).check()
        assert not isinstance(raised.value, StreamForbidden)
