"""The client of a cluster, against scripted nodes: each command reaches the node of its slot, and is executed once."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from datetime import timedelta
from pathlib import Path

import pytest
import trustme
from redis.exceptions import ResponseError

from streams import DeadLetters, Stream, StreamError, StreamForbidden, StreamUnavailable, connect
from streams.connection import redis_errors
from streams.script import Script
from streams.slots import SLOTS, slot_of
from tests.streams.scripted_node import HANG_UP, ScriptedNode, Words, says, slots
from tests.streams.servers import HOST
from tests.streams.two_nodes import HALF, KEY, SET, TwoNodes, reached


async def test_a_command_goes_to_the_node_of_its_slot_and_those_without_a_key_go_along(nodes: TwoNodes) -> None:
    assert await nodes.send(("TIME",), SET) == [b"OK", b"OK"]
    assert nodes.owner.names == ["TIME", "SET"]
    elsewhere = next(f"{{{n}}}" for n in range(100) if (slot_of(f"{{{n}}}") < HALF) != (slot_of(KEY) < HALF))
    await nodes.send(("XINFO", "STREAM", elsewhere), ("EVALSHA", "digest", 1, elsewhere))
    assert nodes.other.names == ["XINFO", "EVALSHA"]
    nodes.other.reply = says("*0")
    await nodes.client.xreadgroup("STREAMS", "consumer", {elsewhere: ">"}, count=1, block=1)
    assert nodes.other.names[-1] == "XREADGROUP"
    await nodes.send(("EVAL", "return 1", 0))  # any node does
    assert [*nodes.owner.names, *nodes.other.names].count("EVAL") == 1
    assert nodes.maps == 1


async def test_moved_is_followed_once_and_renews_the_map_in_the_background(nodes: TwoNodes) -> None:
    await nodes.send(SET)
    nodes.moved()
    made = nodes.owner.made
    assert await nodes.send(SET) == [b"OK"]
    assert (nodes.owner.names, nodes.other.names) == (["SET", "SET"], ["SET"])
    assert await nodes.send(SET) == [b"OK"]  # at once, without the map
    assert (nodes.owner.names, nodes.other.names) == (["SET", "SET"], ["SET", "SET"])
    await reached(lambda: nodes.maps == 2)
    assert await nodes.send(SET) == [b"OK"]
    assert len(nodes.owner.names) == 2
    assert nodes.owner.made == made, "the connection to a healthy node was closed"


async def test_ask_is_followed_once_after_asking_and_changes_no_map(nodes: TwoNodes) -> None:
    await nodes.send(SET)
    nodes.owner.reply = nodes.redirected("ASK", nodes.other)
    assert await nodes.send(SET, SET) == [b"OK", b"OK"]
    assert nodes.other.names == ["ASKING", "SET", "ASKING", "SET"]
    nodes.owner.reply = says("+mine")
    assert await nodes.send(SET) == [b"mine"]
    assert nodes.maps == 1


async def test_an_asking_without_the_right_to_it_is_named(nodes: TwoNodes) -> None:
    async def refusing(words: Words) -> str:
        if words == [b"ASKING"]:
            return "-NOPERM User x has no permissions to run the 'asking' command"
        return f"-MOVED {slot_of(KEY)} {HOST}:{nodes.owner.port}"

    nodes.owner.reply, nodes.other.reply = nodes.redirected("ASK", nodes.other), refusing
    with pytest.raises(StreamForbidden, match="asking"), redis_errors():
        await nodes.client.set(KEY, "value")


async def test_the_reply_to_a_command_counts_though_its_asking_failed(nodes: TwoNodes) -> None:
    async def unlike_redis(words: Words) -> str:
        return "-ERR unknown command" if words == [b"ASKING"] else "+done"

    nodes.owner.reply, nodes.other.reply = nodes.redirected("ASK", nodes.other), unlike_redis
    assert await nodes.send(SET) == [b"done"]


@pytest.mark.parametrize("code", ["MOVED", "ASK"])
async def test_a_redirection_to_a_node_without_a_hostname_is_not_followed(nodes: TwoNodes, code: str) -> None:
    await nodes.send(SET)
    nodes.owner.reply = says(f"-{code} {slot_of(KEY)} ?:{nodes.other.port}")
    with pytest.raises(StreamUnavailable, match="has no hostname") as error, redis_errors():
        await nodes.client.set(KEY, "value")
    assert type(error.value) is StreamUnavailable
    await reached(lambda: nodes.maps == 2)
    assert not nodes.other.names


async def test_only_the_redirected_commands_of_a_trip_are_sent_again(nodes: TwoNodes) -> None:
    async def by_value(words: Words) -> str:
        return f"-MOVED {slot_of(KEY)} {HOST}:{nodes.other.port}" if words[2] == b"b" else f"+owner {words[2].decode()}"

    nodes.owner.reply, nodes.other.reply = by_value, says("+other")
    found = await nodes.send(("SET", KEY, "a"), ("SET", KEY, "b"), ("SET", KEY, "c"))
    assert found == [b"owner a", b"other", b"owner c"]
    assert [words[2] for words in nodes.other.commands] == [b"b"]


@pytest.mark.parametrize("code", ["MOVED", "ASK"])
async def test_a_second_redirection_is_not_followed(nodes: TwoNodes, code: str) -> None:
    nodes.owner.reply = nodes.redirected(code, nodes.other)
    nodes.other.reply = nodes.redirected(code, nodes.owner)
    with pytest.raises(StreamUnavailable, match="redirected twice") as error, redis_errors():
        await nodes.client.set(KEY, "value")
    assert type(error.value) is StreamUnavailable
    assert (nodes.owner.names.count("SET"), nodes.other.names.count("SET")) == (1, 1)


@pytest.mark.parametrize("reply", [None, HANG_UP])
@pytest.mark.parametrize("redirected", [False, True])
async def test_a_command_whose_reply_is_lost_is_not_sent_again(
    nodes: TwoNodes, reply: str | None, redirected: bool
) -> None:
    await nodes.send(SET)
    asked = nodes.owner
    if redirected:
        nodes.owner.reply, asked = nodes.redirected("MOVED", nodes.other), nodes.other
    asked.reply = says(reply)
    before = len(asked.names)
    with pytest.raises(StreamUnavailable):
        await nodes.send(SET)
    await reached(lambda: nodes.maps >= 2)  # the node may be down, and its replica promoted
    assert len(asked.names) == before + 1
    assert len(nodes.owner.names) + len(nodes.other.names) == 2 + redirected


@pytest.mark.parametrize(
    "error",
    ["TRYAGAIN Multiple keys request during rehashing of slot", "CLUSTERDOWN The cluster is down", "LOADING dataset"],
)
async def test_errors_that_mean_not_now_are_not_repeated(nodes: TwoNodes, error: str) -> None:
    nodes.owner.reply = says(f"-{error}")
    with pytest.raises(StreamUnavailable) as raised, redis_errors():
        await nodes.client.set(KEY, "value")
    assert type(raised.value) is StreamUnavailable
    assert nodes.owner.names == ["SET"]
    assert not nodes.other.names


async def test_a_script_that_the_other_node_lacks_is_sent_by_its_text(nodes: TwoNodes) -> None:
    async def forgetful(words: Words) -> str:
        return "-NOSCRIPT No matching script" if words[0] == b"EVALSHA" else ":3"

    await nodes.send(SET)
    nodes.moved()
    nodes.other.reply = forgetful
    assert await Script("streams", "lua", "check.lua")(nodes.client, (KEY,), ()) == 3
    assert nodes.other.names == ["EVALSHA", "EVAL"]


async def test_the_map_is_requested_once_at_a_time_and_no_command_waits_for_it(nodes: TwoNodes) -> None:
    await nodes.send(SET)
    release = asyncio.Event()
    answer = slots((0, SLOTS - 1, nodes.other))

    async def late(words: Words) -> str | None:
        await release.wait()
        return await answer(words)

    nodes.moved()
    nodes.owner.map = nodes.other.map = late
    await asyncio.gather(*(nodes.send(SET) for _ in range(50)))
    await reached(lambda: nodes.maps == 2)
    nodes.other.reply = nodes.redirected("MOVED", nodes.owner)
    nodes.owner.reply = says("+OK")
    for _ in range(20):
        await nodes.send(SET)  # returns, though the map does not
    assert nodes.maps == 2
    release.set()


async def test_no_connection_is_left_over_after_a_thousand_failures(nodes: TwoNodes) -> None:
    await nodes.send(SET)
    nodes.owner.reply = says(HANG_UP)
    for _ in range(100):
        failed = await asyncio.gather(*(nodes.send(SET) for _ in range(10)), return_exceptions=True)
        assert all(isinstance(one, StreamUnavailable) for one in failed)
    await reached(lambda: nodes.owner.connections <= 1)  # one for the map
    assert nodes.other.connections <= 1
    assert nodes.maps < 100, "each failure asked for the map"


async def test_connections_to_a_node_that_left_the_cluster_are_closed(nodes: TwoNodes) -> None:
    await nodes.send(SET)
    nodes.moved()
    await nodes.send(SET)
    await reached(lambda: nodes.owner.connections == 0)
    assert nodes.owner.made == 1


async def test_any_node_that_answers_gives_the_map(nodes: TwoNodes) -> None:
    nodes.other.map = says("*0")  # it has joined no cluster yet
    async with connect(f"redis+cluster://{HOST}:1,{HOST}:{nodes.other.port},{HOST}:{nodes.owner.port}") as client:
        assert await client.set(KEY, "value")
    assert nodes.owner.names == ["SET"]


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        ("-ERR This instance has cluster support disabled", StreamUnavailable, "cluster support disabled"),
        ("-NOPERM User has no permissions to run the 'cluster|slots' command", StreamForbidden, "cluster.slots"),
        ("-WRONGPASS invalid username-password pair", StreamForbidden, "invalid username-password pair"),
        ("*0", StreamUnavailable, "it is in no cluster yet"),
        ("+OK", StreamUnavailable, "no node tells"),
        (HANG_UP, StreamUnavailable, "no node tells"),
        (None, StreamUnavailable, "TimeoutError|no answer in 0.6 s"),
    ],
)
async def test_without_a_map_the_reason_is_told(reply: str | None, kind: type[StreamError], text: str) -> None:
    async with ScriptedNode() as node:
        node.map = says(reply)
        async with connect(f"redis+cluster://{HOST}:{node.port}", timeout=timedelta(seconds=0.6)) as client:
            with pytest.raises(kind, match=text), redis_errors():
                await client.set(KEY, "value")
            node.map = slots((0, SLOTS - 1, node))
            assert await client.set(KEY, "value")


async def test_nodes_are_reached_by_tls(tmp_path: Path) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with ScriptedNode(tls=context) as seed, ScriptedNode(tls=context) as owner:
        seed.map = slots((0, SLOTS - 1, owner))
        url = f"rediss+cluster://{HOST}:{seed.port}"
        async with connect(f"{url}?ssl_ca_certs={tmp_path / 'ca.pem'}") as client:
            assert await client.set(KEY, "value")
        assert owner.names == ["SET"]
        async with connect(url) as client:
            with pytest.raises(StreamForbidden, match="certificate verify failed"), redis_errors():
                await client.set(KEY, "value")


async def test_the_clock_of_the_node_that_has_the_stream_is_read(nodes: TwoNodes) -> None:
    """Each node has a clock of its own, and TIME alone would go to any."""
    nodes.owner.reply = says(":5")
    letters = DeadLetters(nodes.client, Stream("s"))
    for _ in range(20):
        await letters.purge(older_than=timedelta(hours=1))
    assert nodes.owner.names == ["EVALSHA", "XTRIM"] * 20
    assert not nodes.other.names


async def test_a_slot_that_no_node_has_is_asked_from_any(nodes: TwoNodes) -> None:
    nodes.owner.map = nodes.other.map = slots((slot_of(KEY) + 1, SLOTS - 1, nodes.other))
    nodes.other.reply = says("-CLUSTERDOWN Hash slot not served")
    with pytest.raises(StreamUnavailable, match="CLUSTERDOWN"), redis_errors():
        await nodes.client.set(KEY, "value")


async def test_pipelines_are_read_as_by_redis_py_and_transactions_are_refused(nodes: TwoNodes) -> None:
    nodes.owner.reply = says(":1")
    async with nodes.client.pipeline(transaction=False) as pipe:
        pipe.expire(KEY, 1)
        pipe.xlen(KEY)
        first, second = await pipe.execute()
    assert (first, second) == (True, 1)
    nodes.owner.reply = says("-WRONGTYPE of another kind")
    async with nodes.client.pipeline(transaction=False) as pipe:
        pipe.xlen(KEY)
        [error] = await pipe.execute(raise_on_error=False)
        assert isinstance(error, ResponseError)
        pipe.xlen(KEY)
        with pytest.raises(StreamError, match="WRONGTYPE"), redis_errors():
            await pipe.execute()
    with pytest.raises(StreamError, match="needs one server"), redis_errors():
        await nodes.client.pipeline().execute()
    with pytest.raises(StreamError, match="needs one server"), redis_errors():
        await nodes.client.transaction(lambda pipe: None, KEY)


async def test_a_cancelled_command_leaves_no_connection_with_its_reply(nodes: TwoNodes) -> None:
    await nodes.send(SET)
    nodes.owner.reply = says(None)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await nodes.send(SET)
    nodes.owner.reply = says("+fresh")
    assert await nodes.send(SET) == [b"fresh"]
    await reached(lambda: nodes.maps == 2)  # the caller's time-out may be shorter than the client's
