"""The client of a Redis Cluster: sends each command to the node that has its slot.

Guarantees: no command is executed twice. MOVED and ASK prove that a command was not executed, so it is sent once more, to
the node that they name; after a time-out or a lost connection nothing is sent again. What happens to one node closes no
connection to another.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import Connection, SSLConnection
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from streams.pool import Command, Pool, is_bad_certificate
from streams.server_url import Host
from streams.slots import NAMELESS, SLOTS, SlotRange, key_of, parse_cluster_url, parse_slots, slot_of

PATIENCE_S: Final = 0.5  # with one node that is asked for the map, before the next is asked
FIRST_PATIENCE_S: Final = 5.0  # with each silent one for the first map, if the time-out of connecting is not set
EVERY_S: Final = 0.1  # between two requests for the map: each command of an outage wants one
_MOST_KEYS: Final = 4_096  # whose slots are kept; rate limits have a key per client
_STAYS: Final = frozenset({"MOVED", "ASK", "CLUSTERDOWN"})


class NodePool(Pool):
    """Connections to one node."""

    def __init__(self, host: Host, **options: Any) -> None:
        super().__init__(host=host[0], port=host[1], **options)
        self.address = host

    def leads_elsewhere(self, error: ResponseError) -> bool:
        """Return True if the connection is of no use. One that leads to a node without the slot is."""
        return error.status_code not in _STAYS and super().leads_elsewhere(error)

    async def close_idle(self) -> None:
        """Close the idle connections without waiting for the node: with TLS, a dead one would be waited for."""
        for connection in self._available_connections:
            with suppress(RedisError, OSError, RuntimeError):
                await connection.disconnect(nowait=True)


class ClusterPool(Pool):
    """The connections to all nodes, a pool for each, and the map of the slots.

    The map is asked for by the first command, from any node that answers. Then every MOVED, every lost connection and every
    node that cannot serve asks for a new one, in the background and one request at a time; commands go by the old map
    meanwhile, and one that is wrong is followed by its MOVED. What goes wrong during a request may be newer than its reply,
    so there is another request after it.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        address = parse_cluster_url(url)
        self._options = {**address.options, **options, "connection_class": SSLConnection if address.tls else Connection}
        super().__init__(**self._options)  # no connection is made of it; callers read its options
        self._seeds = address.hosts
        self._nodes: dict[Host, NodePool] = {}
        self.ranges: tuple[SlotRange, ...] = ()
        self._owners: list[NodePool | None] = []  # by slot; empty until the first map
        self._slots: dict[str | bytes, int] = {}  # by key
        self._asking: asyncio.Task[None] | None = None
        self._asked_s = float("-inf")
        self._again = False  # a map was wanted after the request under way had been sent
        self._closed = False

    async def replies(self, commands: Sequence[Command]) -> list[Any]:
        """Send the commands in one round trip to the node of the first key among them; return the reply to each, which may be
        an error. A command with a key of another node is sent there afterwards. Commands without a key go along, to
        the first node alone: if the key's command is redirected, TIME is not the time of the node that has the key."""
        if not self._owners:
            await self.renewed_map()
        node = self._node_for(commands)
        try:
            found = await node.replies(commands)
            for reply in found:
                if isinstance(reply, ResponseError):
                    await self._handle_errors(node, commands, found)
                    break
        except (Exception, asyncio.CancelledError):  # callers have time-outs of their own
            self.renew_map()
            raise
        return found

    def _node_for(self, commands: Sequence[Command]) -> NodePool:
        for command in commands:
            key = key_of(command)
            if key is not None:
                slot = self._slots.get(key)
                if slot is None:
                    slot = self._keep_slot(key)
                return self._owners[slot] or self._any_node()
        return self._any_node()

    def _keep_slot(self, key: str | bytes) -> int:
        if len(self._slots) >= _MOST_KEYS:
            self._slots.clear()
        slot = self._slots[key] = slot_of(key)
        return slot

    def _any_node(self) -> NodePool:
        return self.node(random.choice(self.ranges).primary)

    def hosts(self) -> Collection[Host]:
        """Return the nodes that the map has, each once."""
        return dict.fromkeys(host for one in self.ranges for host in (one.primary, *one.replicas))

    def node(self, host: Host) -> NodePool:
        """Return the connections to this node."""
        found = self._nodes.get(host)
        if found is None:
            found = self._nodes[host] = NodePool(host, **self._options)
        return found

    async def _handle_errors(self, node: NodePool, commands: Sequence[Command], found: list[Any]) -> None:
        """Send what was redirected once more, and put the replies in the places of the redirections."""
        redirected: dict[NodePool, list[int]] = {}
        for at, reply in enumerate(found):
            if isinstance(reply, AskError) and reply.host == NAMELESS:
                found[at] = TryAgainError(
                    f"the node that has the slot has no hostname: {reply}", status_code="TRYAGAIN"
                )
                self.renew_map()
            elif isinstance(reply, AskError):  # MOVED is one, too
                target = self.node((reply.host or node.address[0], reply.port))
                redirected.setdefault(target, []).append(at)
                if isinstance(reply, MovedError):
                    self._owners[reply.slot_id] = target
                    self.renew_map()
            elif isinstance(reply, ClusterDownError | ReadOnlyError):
                self.renew_map()
        for target, places in redirected.items():
            trip: list[Command] = []
            for at in places:
                if not isinstance(found[at], MovedError):
                    trip.append(("ASKING",))
                trip.append(commands[at])
            answers = iter(await target.replies(trip))
            for at in places:
                asking = None if isinstance(found[at], MovedError) else next(answers)
                answer = next(answers)
                refused = isinstance(asking, ResponseError) and isinstance(answer, ResponseError)
                found[at] = asking if refused else _not_redirected(answer)

    def renew_map(self) -> None:
        """Ask for a new map in the background, after the request that is under way."""
        self._again = True
        if not self._closed:
            self._request()

    def _request(self) -> asyncio.Task[None]:
        """Return the request for the map that is under way; start one if none is."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._renew_map())
            self._asking.add_done_callback(self._asked)
        return self._asking

    def _asked(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        task.exception()  # the next command shows it: asyncio need not log it
        if self._again:
            self.renew_map()

    async def renewed_map(self) -> tuple[SlotRange, ...]:
        """Return the map that the cluster has now. Raises redis-py's ConnectionError if no node gives it, and its
        AuthenticationError if none lets us in."""
        if self._closed:
            raise RedisConnectionError("the client is closed")
        request = self._request()
        await asyncio.wait([request])  # which a cancelled caller does not cancel for the others
        if request.cancelled():
            raise RedisConnectionError("the client was closed while it asked for the slots")
        request.result()
        return self.ranges

    async def _renew_map(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._asked_s + EVERY_S - loop.time())
        self._again = False
        try:
            ranges = await self._ask()
        finally:
            self._asked_s = loop.time()
        owners: list[NodePool | None] = [None] * SLOTS
        for one in ranges:
            owners[one.first : one.last + 1] = [self.node(one.primary)] * (one.last + 1 - one.first)
        self.ranges, self._owners = ranges, owners
        await self._leave_unknown_nodes()

    async def _ask(self) -> tuple[SlotRange, ...]:
        """Ask one node after the other, in no order: one that is cut off from the others may answer with an old map, and must
        not be asked each time. Without any map, the silent ones are asked once more, and longer: they may be far away."""
        known = set(self.hosts())
        found: dict[Host, str] = {}
        forbidden = 0
        tries = deque((host, PATIENCE_S) for host in (*_shuffled(known), *_shuffled(set(self._seeds) - known)))
        while tries:
            host, patience_s = tries.popleft()
            try:
                async with asyncio.timeout(patience_s):
                    [reply] = await self.node(host).replies([("CLUSTER", "SLOTS")])
                if isinstance(reply, ResponseError):
                    raise reply
                if ranges := parse_slots(reply, asked=host):
                    return ranges
                found[host] = "it is in no cluster yet"
            except (RedisError, OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
                no_login = isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError)
                forbidden += no_login or is_bad_certificate(error)
                found[host] = str(error) or type(error).__name__
                if isinstance(error, TimeoutError) and not self.ranges and patience_s < (longer_s := self._longer_s()):
                    tries.append((host, longer_s))
        kind = AuthenticationError if forbidden == len(found) else RedisConnectionError
        reasons = "; ".join(f"{text_of(host)}: {reason}" for host, reason in found.items())
        raise kind(f"no node tells who has which slots: {reasons}")

    def _longer_s(self) -> float:
        return float(self._options.get("socket_connect_timeout") or FIRST_PATIENCE_S)

    async def _leave_unknown_nodes(self) -> None:
        """Close connections to nodes that the map does not have any more, once no command is under way there."""
        for host in self._nodes.keys() - self.hosts():
            node = self._nodes[host]
            if not node._in_use_connections:
                del self._nodes[host]
                await node.close_idle()

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close all connections. Idle ones alone are not closed, which callers want after a failover: the map is renewed."""
        if not inuse_connections:
            self.renew_map()
            return
        self._closed = True
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
        await asyncio.gather(*(node.disconnect() for node in self._nodes.values()), return_exceptions=True)

    async def get_connection(self, *_: Any, **__: Any) -> Any:
        """Raise: a connection leads to one node, and which one depends on the command."""
        raise RedisError("this call of redis-py needs one server, not a cluster")


async def node_clients(client: Redis) -> Mapping[str, Redis]:
    """Return a client for each node that has slots or copies of them, by address; a client of one server under no name.
    They share the connections of `client`. Raises redis-py's errors."""
    pool = client.connection_pool
    if not isinstance(pool, ClusterPool):
        return {"": client}
    await pool.renewed_map()
    return {text_of(host): Redis(connection_pool=pool.node(host)) for host in pool.hosts()}


def _not_redirected(reply: Any) -> Any:
    """Return the reply; a second redirection as TRYAGAIN: the slot is on the move."""
    if isinstance(reply, AskError):
        return TryAgainError(f"redirected twice, the slot moves: {reply}", status_code="TRYAGAIN")
    return reply


def _shuffled(hosts: set[Host]) -> list[Host]:
    return random.sample(sorted(hosts), len(hosts))


def text_of(host: Host) -> str:
    """Return host and port as in a URL."""
    return f"{host[0]}:{host[1]}"


class ClusterClient(Redis):
    """redis-py's client, whose single commands and pipelines go to the node of their key. Transactions, subscriptions and
    scripts of redis-py's are not supported."""

    connection_pool: ClusterPool

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute one command; return redis-py's reading of the reply."""
        [reply] = await self.connection_pool.replies([_command(args)])
        if isinstance(reply, ResponseError):
            raise reply
        return _read(self, args[0], reply, options)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> ClusterPipeline:
        """Return a pipeline whose commands go to the node of the first key among them."""
        return ClusterPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class ClusterPipeline(Pipeline):
    """Commands for one round trip."""

    connection_pool: ClusterPool

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send the commands; return the replies in their order, errors among them unless they are to be raised."""
        if self.is_transaction or self.explicit_transaction:
            raise RedisError("a transaction needs one server, not a cluster")
        stack = self.command_stack
        await self.reset()  # type: ignore[no-untyped-call] # redis-py has no types there
        found = await self.connection_pool.replies([_command(args) for args, _ in stack])
        for at, ((args, options), reply) in enumerate(zip(stack, found, strict=True)):
            if not isinstance(reply, ResponseError):
                found[at] = _read(self, args[0], reply, options)
        if raise_on_error:
            self.raise_first_error(stack, found)
        return found


def _command(args: Sequence[Any]) -> Command:
    """Return the words of a command: redis-py writes some names as one, "XINFO STREAM"."""
    return (*args[0].split(" "), *args[1:]) if " " in args[0] else args


def _read(client: Redis, name: Any, reply: Any, options: Mapping[str, Any]) -> Any:
    callback = client.response_callbacks.get(name)
    return (
        reply
        if callback is None
        else callback(reply, **{key: value for key, value in options.items() if key != "keys"})
    )
