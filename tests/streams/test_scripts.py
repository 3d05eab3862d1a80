from __future__ import annotations

import re
from importlib.resources import files

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from streams import Draft, Inspector, Producer, Stream, scripts
from streams.connection import redis_errors, translated
from streams.errors import GroupLost, StreamError, StreamRefused, StreamUnavailable
from streams.group import Group
from tests.streams.running import GROUP, consumer, done

SCRIPTS = {
    path.name: path.read_text()
    for folder in (files("streams").joinpath("lua"), files("okane.redis"))
    for path in folder.iterdir()
    if path.name.endswith(".lua")
}


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_every_script_documents_its_arguments_and_reply(name: str) -> None:
    text = SCRIPTS[name]
    header = text[: text.index("\nlocal")]
    for word in ("KEYS", "ARGV", "Returns"):
        assert re.search(rf"^-- {word}\b", header, re.MULTILINE), word


async def test_scripts_come_back_after_the_server_forgot_them(client: Redis, stream: Stream) -> None:
    producer = Producer(client, stream)
    worker = consumer(client, stream, done)
    for _ in range(2):
        await producer.publish(b"x")
        assert await worker.run_once() == 1
        await client.script_flush()
    assert (await Inspector(client, stream, group=GROUP).stats()).pending == 0


async def test_an_error_of_one_entry_is_its_own(client: Redis, stream: Stream) -> None:
    """They share a round trip after the server forgot the script, and one of them fails."""
    good = await Producer(client, stream).publish_many([Draft(b"x")] * 3)
    await client.script_flush()
    found = await scripts.ack(
        Group(client, stream, GROUP, "c1"),
        [scripts.AckRequest({"critical": ids}) for ids in (good[:2], [good[2], "no id"])],
    )
    assert found[0] == []
    assert isinstance(found[1], list)
    [(lane, entry_id, why)] = found[1]
    assert (lane, entry_id) == ("critical", "no id")
    assert "Invalid stream ID" in why


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("NOGROUP No such key 'x' or consumer group 'g'", GroupLost),
        ("UNBLOCKED the stream key no longer exists", GroupLost),
        ("READONLY You can't write against a read only replica.", StreamUnavailable),
        ("Error running script (call to f_1): @user_script:9: -READONLY You can't write", StreamUnavailable),
        ("OOM command not allowed when used memory > 'maxmemory'.", StreamUnavailable),
        ("LOADING Redis is loading the dataset in memory", StreamUnavailable),
        ("MASTERDOWN Link with MASTER is down", StreamUnavailable),
        ("MISCONF Errors writing to the AOF file: No space left on device", StreamUnavailable),
        ("BUSYKEY Target key name already exists.", StreamRefused),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", StreamRefused),
    ],
)
def test_error_replies_are_translated(text: str, meaning: type[StreamError]) -> None:
    assert type(translated(ResponseError(text))) is meaning


async def test_the_error_of_a_transport_that_was_lost_is_an_outage() -> None:
    with pytest.raises(StreamUnavailable), redis_errors():
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")
    with pytest.raises(RuntimeError), redis_errors():
        raise RuntimeError("dictionary changed size during iteration")
