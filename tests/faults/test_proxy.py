"""The fault proxy forwards or breaks connections: to a server of the test, a real Redis and a real Postgres."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import cast
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from streams import Lane, Producer, Stream, StreamUnavailable, connect
from torture.network.link_faults import Blackhole, Direction, Drip, Fault, Latency, LoseReplies, Refuse, Stall
from torture.network.pipe import reset_on_close
from torture.network.proxy import FaultProxy

HOST = "127.0.0.1"
ALL_WAYS: Sequence[Fault] = (
    Latency(delay_ms=1),
    Stall(),
    Blackhole(),
    Refuse(),
    LoseReplies(),
    Drip(chunk_bytes=1000, every_ms=1),
)


class Echo(asyncio.Protocol):
    """One connection of the echoing server: what came in, in which pieces, and how it ended."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.ended = False
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport

    @property
    def received(self) -> bytes:
        return b"".join(self.pieces)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)
        self.transport.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        return False  # closes, once everything is sent

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(error)


class Digest(Echo):
    """Answers with the digest of everything, and only after the end of it."""

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)

    def eof_received(self) -> bool:
        self.transport.write(hashlib.sha256(self.received).digest())
        return super().eof_received()


class Server:
    """A server in this process, and the connections it has seen."""

    def __init__(self, kind: type[Echo] = Echo) -> None:
        self._kind = kind
        self.seen: list[Echo] = []
        self.port = 0

    def _new(self) -> Echo:
        self.seen.append(self._kind())
        return self.seen[-1]

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Server]:
        listener = await asyncio.get_running_loop().create_server(self._new, HOST, 0)
        self.port = listener.sockets[0].getsockname()[1]
        yield self
        listener.close()
        for connection in self.seen:
            connection.transport.abort()
            await connection.lost

    @property
    def received(self) -> bytes:
        return b"".join(connection.received for connection in self.seen)


class Client:
    """One connection to the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def read(self, count: int) -> bytes:
        return await self.reader.readexactly(count)

    async def exchange(self, data: bytes) -> bytes:
        self.send(data)
        return await self.read(len(data))

    async def reset(self) -> None:
        """Wait to be reset; nothing may come before."""
        with pytest.raises(ConnectionResetError):
            assert await self.reader.read() == b"a reset, not an end"


class Bench:
    """A proxy before an echoing server, and clients of it."""

    def __init__(self, server: Server, proxy: FaultProxy) -> None:
        self.server = server
        self.proxy = proxy
        self._clients: list[Client] = []

    async def client(self) -> Client:
        client = Client(*await asyncio.open_connection(HOST, self.proxy.port))
        self._clients.append(client)
        return client

    async def aclose(self) -> None:
        for client in self._clients:
            client.writer.close()

    async def arrived(self, count: int) -> None:
        """So many bytes have come to the proxy from clients."""
        await until(lambda: self.proxy.traffic.to_server_bytes >= count)

    async def settle(self) -> None:
        """Whatever the proxy had sent by now would be there: some round trips elsewhere, served by the same loop."""
        async with Server().serving() as elsewhere:
            reader, writer = await asyncio.open_connection(HOST, elsewhere.port)
            for _ in range(3):
                writer.write(b"!")
                await reader.readexactly(1)
            writer.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def served(kind: type[Echo] = Echo) -> AsyncIterator[Bench]:
    async with (
        asyncio.timeout(60),
        Server(kind).serving() as server,
        FaultProxy((HOST, server.port), dice=random.Random(1)) as proxy,
    ):
        bench = Bench(server, proxy)
        yield bench
        await bench.aclose()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with served() as one:
        yield one


async def test_everything_passes_unchanged_in_both_directions(bench: Bench) -> None:
    data = random.Random(2).randbytes(8 << 20)  # more than all buffers on the way hold
    client = await bench.client()
    assert await client.exchange(data) == data
    assert bench.server.received == data
    traffic = bench.proxy.traffic
    assert (traffic.open_connections, traffic.connections) == (1, 1)
    assert (traffic.to_server_bytes, traffic.to_client_bytes, traffic.swallowed_bytes) == (len(data), len(data), 0)


async def test_a_half_closed_stream_is_answered() -> None:
    async with served(Digest) as bench:
        client = await bench.client()
        client.send(b"all of it")
        client.writer.write_eof()
        assert await client.reader.read() == hashlib.sha256(b"all of it").digest()
        await until(lambda: bench.proxy.traffic.open_connections == 0)


async def test_a_client_that_leaves_and_a_server_that_leaves_are_told_to_the_other(bench: Bench) -> None:
    leaving, left = await bench.client(), await bench.client()
    assert await leaving.exchange(b"1") + await left.exchange(b"2") == b"12"
    leaving.writer.close()
    assert await bench.server.seen[0].lost is None
    bench.server.seen[1].transport.close()
    assert await left.reader.read() == b""
    left.writer.close()
    await until(lambda: bench.proxy.traffic.open_connections == 0)


async def test_a_reset_of_one_side_is_a_reset_of_the_other(bench: Bench) -> None:
    client, other = await bench.client(), await bench.client()
    assert await client.exchange(b"1") + await other.exchange(b"2") == b"12"
    abort(client.writer.transport)
    assert isinstance(await bench.server.seen[0].lost, ConnectionResetError)
    abort(bench.server.seen[1].transport)
    await other.reset()


def abort(transport: asyncio.BaseTransport) -> None:
    reset_on_close(transport.get_extra_info("socket"))
    cast(asyncio.Transport, transport).abort()


async def test_a_server_that_is_not_there_resets(bench: Bench, free_port: int) -> None:
    bench.proxy.point_at((HOST, free_port))
    await (await bench.client()).reset()
    await until(lambda: bench.proxy.traffic.open_connections == 0)


async def test_new_connections_go_where_the_proxy_points_and_present_ones_stay(bench: Bench) -> None:
    client = await bench.client()
    await client.exchange(b"here")
    async with Server().serving() as other:
        bench.proxy.point_at((HOST, other.port))
        moved = await bench.client()
        await moved.exchange(b"there")
        await client.exchange(b", here")
        assert (bench.server.received, other.received) == (b"here, here", b"there")
        moved.writer.close()
        await other.seen[0].lost


@pytest.mark.parametrize("direction", Direction)
async def test_latency_delays_and_keeps_the_order(bench: Bench, direction: Direction) -> None:
    client = await bench.client()
    await client.exchange(b"before")
    bench.proxy.strike(Latency(delay_ms=30, jitter_ms=20, direction=direction))
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    assert await client.exchange(b"1") == b"1"
    assert loop.time() - started_s >= (0.06 if direction is Direction.BOTH else 0.03)
    data = bytes(range(200))
    for byte in data:
        client.send(bytes([byte]))
        await asyncio.sleep(0)
    assert await client.read(len(data)) == data


async def test_what_latency_still_holds_is_delivered_by_healing(bench: Bench) -> None:
    client = await bench.client()
    await client.exchange(b"before")
    bench.proxy.strike(Latency(delay_ms=3_600_000))
    client.send(b"kept")
    await bench.arrived(len(b"beforekept"))
    bench.proxy.heal()
    assert await client.read(4) == b"kept"


async def test_a_stall_keeps_everything_and_healing_delivers_it(bench: Bench) -> None:
    client = await bench.client()
    await client.exchange(b"before ")
    bench.proxy.strike(Stall())
    client.send(b"kept ")
    newcomer = await bench.client()
    newcomer.send(b"new")
    newcomer.writer.write_eof()
    await bench.arrived(len(b"before kept new"))
    await bench.settle()
    assert bench.server.received == b"before "
    bench.proxy.heal()
    assert await client.read(5) == b"kept "
    assert await newcomer.reader.read() == b"new"
    assert await client.exchange(b"after") == b"after"


async def test_a_stall_of_replies_lets_requests_through(bench: Bench) -> None:
    client = await bench.client()
    bench.proxy.strike(Stall(direction=Direction.TO_CLIENT))
    client.send(b"request")
    await until(lambda: bench.server.received == b"request")
    await bench.settle()
    reading = asyncio.ensure_future(client.read(7))
    await asyncio.sleep(0)
    assert not reading.done()
    bench.proxy.heal()
    assert await reading == b"request"


async def test_a_stall_holds_back_whoever_sends_too_much(bench: Bench) -> None:
    client = await bench.client()
    bench.proxy.strike(Stall())
    data = random.Random(3).randbytes(32 << 20)
    client.send(data)
    await bench.arrived(1 << 20)
    await bench.settle()
    assert bench.proxy.traffic.to_server_bytes < 2 << 20
    bench.proxy.heal()
    assert await client.read(len(data)) == data


async def test_a_client_that_leaves_during_a_stall_is_missed_only_afterwards(bench: Bench) -> None:
    client = await bench.client()
    await client.exchange(b"before, ")
    bench.proxy.strike(Stall())
    client.send(b"last words")
    await bench.arrived(len(b"before, last words"))
    abort(client.writer.transport)
    await bench.settle()
    assert not bench.server.seen[0].lost.done()
    bench.proxy.heal()
    assert isinstance(await bench.server.seen[0].lost, ConnectionResetError | BrokenPipeError)
    await until(lambda: bench.proxy.traffic.open_connections == 0)


async def test_a_blackhole_swallows_for_good_and_hangs_until_it_is_healed(bench: Bench) -> None:
    client = await bench.client()
    await client.exchange(b"before")
    bench.proxy.strike(Blackhole())
    client.send(b"lost")
    newcomer = await bench.client()
    newcomer.send(b"lost, too")
    await bench.arrived(len(b"beforelostlost, too"))
    await bench.settle()
    assert bench.server.received == b"before"
    assert not client.reader.at_eof()
    assert bench.proxy.traffic.swallowed_bytes == len(b"lostlost, too")
    bench.proxy.heal()
    await client.reset()
    await newcomer.reset()
    assert bench.server.received == b"before"
    assert await (await bench.client()).exchange(b"after") == b"after"


async def test_connections_that_lost_nothing_in_a_blackhole_go_on(bench: Bench) -> None:
    idle = await bench.client()
    await idle.exchange(b"before ")
    bench.proxy.strike(Blackhole())
    newcomer = await bench.client()
    await bench.settle()
    assert len(bench.server.seen) == 1  # not even its connection gets there
    bench.proxy.heal()
    assert await idle.exchange(b"after ") == b"after "
    assert await newcomer.exchange(b"new") == b"new"


async def test_a_blackhole_of_replies_lets_requests_through(bench: Bench) -> None:
    client = await bench.client()
    bench.proxy.strike(Blackhole(direction=Direction.TO_CLIENT))
    client.send(b"request")
    await until(lambda: bench.proxy.traffic.swallowed_bytes == 7)
    assert bench.server.received == b"request"
    client.send(b", another")  # it hangs, and is not broken
    await until(lambda: bench.server.received == b"request, another")
    bench.proxy.heal()
    await client.reset()


async def test_a_server_that_ends_in_a_blackhole_is_missed_only_afterwards(bench: Bench) -> None:
    client = await bench.client()
    await client.exchange(b"before")
    bench.proxy.strike(Blackhole())
    bench.server.seen[0].transport.close()
    await bench.settle()
    assert not client.reader.at_eof()
    bench.proxy.heal()
    await client.reset()


async def test_a_reset_breaks_both_sides_of_every_connection(bench: Bench) -> None:
    clients = [await bench.client() for _ in range(3)]
    for client in clients:
        await client.exchange(b"before")
    bench.proxy.reset()
    for client, connection in zip(clients, list(bench.server.seen), strict=True):
        await client.reset()
        assert isinstance(await connection.lost, ConnectionResetError)
    assert await (await bench.client()).exchange(b"after") == b"after"
    await until(lambda: bench.proxy.traffic.open_connections == 1)


async def test_new_connections_are_refused_and_present_ones_go_on(bench: Bench) -> None:
    client = await bench.client()
    await client.exchange(b"before")
    port = bench.proxy.port
    for _ in range(3):
        bench.proxy.strike(Refuse())
        with pytest.raises(ConnectionRefusedError):
            await bench.client()
        assert await client.exchange(b"still") == b"still"
        bench.proxy.heal()
        assert await (await bench.client()).exchange(b"again") == b"again"
    assert bench.proxy.port == port


async def test_a_lost_reply_reaches_nobody_though_its_request_did(bench: Bench) -> None:
    client = await bench.client()
    await client.exchange(b"before ")
    bench.proxy.strike(LoseReplies())
    client.send(b"request")
    await client.reset()
    assert bench.server.received == b"before request"
    newcomer = await bench.client()  # they too, until it is healed
    newcomer.send(b", another")
    await newcomer.reset()
    bench.proxy.heal()
    assert await (await bench.client()).exchange(b"after") == b"after"


async def test_replies_are_lost_up_to_so_many_bytes(bench: Bench) -> None:
    client = await bench.client()
    bench.proxy.strike(LoseReplies(after_bytes=10))
    client.send(b"12345")
    await until(lambda: bench.proxy.traffic.swallowed_bytes == 5)
    assert not client.reader.at_eof()
    client.send(b"67890")
    await client.reset()
    assert bench.server.received == b"1234567890"


async def test_a_connection_that_has_lost_a_part_of_its_replies_is_reset_by_healing(bench: Bench) -> None:
    client = await bench.client()
    bench.proxy.strike(LoseReplies(after_bytes=10))
    client.send(b"12345")
    await until(lambda: bench.proxy.traffic.swallowed_bytes == 5)
    bench.proxy.heal()
    await client.reset()


async def test_dripping_passes_a_few_bytes_at_a_time(bench: Bench) -> None:
    client = await bench.client()
    await client.exchange(b"before")
    bench.server.seen[0].pieces.clear()
    bench.proxy.strike(Drip(chunk_bytes=3, every_ms=20, direction=Direction.TO_SERVER))
    assert await client.exchange(b"0123456789") == b"0123456789"
    assert bench.server.seen[0].pieces[0] == b"012"
    assert len(bench.server.seen[0].pieces) > 1


async def test_what_still_drips_is_delivered_by_healing(bench: Bench) -> None:
    client = await bench.client()
    bench.proxy.strike(Drip(chunk_bytes=1, every_ms=3_600_000))
    client.send(b"slow")
    await bench.arrived(4)
    bench.proxy.heal()
    assert await client.read(4) == b"slow"


async def test_a_fault_in_place_of_another_heals_it_first(bench: Bench) -> None:
    client = await bench.client()
    bench.proxy.strike(Stall())
    client.send(b"kept")
    await bench.arrived(4)
    bench.proxy.strike(Refuse())
    assert await client.read(4) == b"kept"
    bench.proxy.strike(Latency(delay_ms=1))
    assert await (await bench.client()).exchange(b"listens again") == b"listens again"


@pytest.mark.parametrize("fault", [None, *ALL_WAYS], ids=repr)
async def test_closing_leaves_nothing_behind_whatever_is_in_force(fault: Fault | None) -> None:
    before = asyncio.all_tasks()
    async with Server().serving() as server:
        proxy = FaultProxy((HOST, server.port))
        await proxy.start()
        bench = Bench(server, proxy)
        client = await bench.client()
        await client.exchange(b"before")
        if fault is not None:
            proxy.strike(fault)
        client.send(b"x" * 1000)
        if not isinstance(fault, Refuse):
            (await bench.client()).send(b"y" * 1000)
        await bench.arrived(7)
        await proxy.aclose()
        assert proxy.traffic.open_connections == 0
        await until(lambda: asyncio.all_tasks() == before)  # the server may still be accepting
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, proxy.port)
        await bench.aclose()


async def test_a_connection_may_be_closed_at_once(bench: Bench) -> None:
    for _ in range(50):
        client = await bench.client()
        abort(client.writer.transport)
    await until(lambda: bench.proxy.traffic.connections == 50 and bench.proxy.traffic.open_connections == 0)


async def test_a_taken_port_is_refused(bench: Bench) -> None:
    with pytest.raises(OSError, match="in use"):
        await FaultProxy((HOST, 1), port=bench.server.port).start()


HARMLESS = st.one_of(
    st.builds(Latency, delay_ms=st.floats(0, 2), jitter_ms=st.floats(0, 2), direction=st.sampled_from(Direction)),
    st.builds(Stall, direction=st.sampled_from(Direction)),
    st.builds(Drip, chunk_bytes=st.integers(1, 50), every_ms=st.floats(0, 1), direction=st.sampled_from(Direction)),
    st.just(Refuse()),
)
STEPS = st.lists(st.one_of(st.binary(min_size=1, max_size=300), st.none(), HARMLESS), max_size=20)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS)
def test_no_fault_that_spares_bytes_changes_their_order(steps: Sequence[bytes | Fault | None]) -> None:
    async def play() -> None:
        async with served() as bench:
            client = await bench.client()
            for step in steps:
                match step:
                    case bytes():
                        client.send(step)
                        await asyncio.sleep(0)
                    case None:
                        bench.proxy.heal()
                    case _:
                        bench.proxy.strike(step)
                        await asyncio.sleep(0)
            client.writer.write_eof()
            bench.proxy.heal()
            sent = b"".join(step for step in steps if isinstance(step, bytes))
            assert await client.reader.read() == sent
            assert bench.server.received == sent

    asyncio.run(play())


async def test_redis_has_applied_what_it_could_not_answer(redis_url: str) -> None:
    address = urlsplit(redis_url)
    assert address.hostname is not None
    assert address.port is not None
    stream = Stream(f"proxy-{uuid4()}", lanes=(Lane("default", 1),))
    async with FaultProxy((address.hostname, address.port)) as proxy:
        through = redis_url.replace(f":{address.port}", f":{proxy.port}")
        redis = connect(through, timeout=timedelta(seconds=10))
        async with redis:
            producer = Producer(redis, stream)
            await producer.publish(b"before", lane="default")
            proxy.strike(LoseReplies())
            with pytest.raises(StreamUnavailable):
                await producer.publish(b"applied", lane="default")
            proxy.heal()
            assert await redis.xlen(stream.lane_keys[0]) == 2
            await producer.aclose()


async def test_postgres_has_committed_what_it_could_not_confirm(database_url: str) -> None:
    address = conninfo_to_dict(database_url)
    async with FaultProxy((str(address["host"]), int(str(address["port"])))) as proxy:
        through = make_conninfo(database_url, host=proxy.host, port=proxy.port)
        connection = await psycopg.AsyncConnection.connect(through)
        await connection.execute("INSERT INTO sweep_cursors (lane, passed) VALUES ('proxy', %s)", [uuid4()])
        proxy.strike(LoseReplies())
        with pytest.raises(psycopg.OperationalError):
            await connection.commit()
        await connection.close()
    async with await psycopg.AsyncConnection.connect(database_url) as direct:
        cursor = await direct.execute("SELECT count(*) FROM sweep_cursors WHERE lane = 'proxy'")
        assert await cursor.fetchone() == (1,)
