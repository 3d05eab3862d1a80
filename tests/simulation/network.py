"""The network between processes and servers: every request and every reply takes its time, and may be lost.

A request that was sent is executed when it arrives, whether or not its sender still lives or waits. A sender without an
answer gets an error after its time-out, and cannot tell whether its request was executed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, TypeVar

from tests.simulation.loop import Process, SimulationLoop, current_process

T = TypeVar("T")

REFUSED_S: Final = 0.001  # until a sender gets the refusal of its connection


class NotSent(Exception):
    """The connection was refused: the request was not executed."""


class NoAnswer(Exception):
    """The connection broke, or no answer came in time: the request may have been executed."""

    def __init__(self, *, silent: bool) -> None:
        super().__init__("no answer in time" if silent else "connection reset")
        self.silent = silent


@dataclass(slots=True)
class Link:
    """The way to one server and its faults; the chances are per request."""

    name: str
    down: bool = False
    cut: set[str] = field(default_factory=set)  # processes that cannot reach it
    lose_request: float = 0.0
    lose_reply: float = 0.0
    linger: float = 0.0  # the request arrives after its sender has given up
    slow: float = 0.0
    slow_s: float = 0.0
    busy: float = 0.0  # rows are locked by another session (Postgres only)

    def heal(self) -> None:
        """End all faults."""
        self.down = False
        self.cut.clear()
        self.lose_request = self.lose_reply = self.linger = self.slow = self.slow_s = self.busy = 0.0

    @property
    def calm(self) -> bool:
        return not (self.lose_request or self.lose_reply or self.linger or self.slow)


@dataclass(slots=True)
class Doom:
    """The kill of a process at its `countdown`-th request called `what`, before it is sent or right after.

    With `stop_s` the process is stopped for so long instead, while its request is under way.
    """

    what: str
    countdown: int
    sent: bool
    stop_s: float = 0.0


@dataclass(slots=True)
class Exchange:
    """One request under way. The server calls `answer` when it keeps the request waiting."""

    sender: Process
    link: Link
    reply_s: float
    lose_reply: bool
    future: asyncio.Future[tuple[bool, Any]]
    network: Network

    @property
    def waiting(self) -> bool:
        """True while the sender waits for the answer."""
        return self.sender.alive and not self.future.done()

    def answer(self, value: Any, *, failed: bool = False) -> None:
        if self.lose_reply:
            value, failed = NoAnswer(silent=False), True
        self.network.later(self.reply_s, self._deliver, failed, value)

    def _deliver(self, failed: bool, value: Any) -> None:
        if not self.future.done():
            self.future.set_result((failed, value))


class Network:
    """The carrier of requests. `faults` counts the faults on the way, `dooms` has the processes to kill and at which
    request."""

    def __init__(self, loop: SimulationLoop, dice: Random) -> None:
        self.loop = loop
        self.dice = dice
        self.faults: Counter[str] = Counter()
        self.dooms: dict[str, Doom] = {}
        self.trace: Callable[[Process, str, str], None] | None = None
        self._world = loop.context(loop.world)

    def later(self, delay_s: float, act: Callable[..., object], *arguments: Any) -> None:
        """Run a callback in the world after a while."""
        self.loop.call_later(delay_s, act, *arguments, context=self._world)

    async def call(
        self,
        link: Link,
        what: str,
        effect: Callable[[Exchange], Any],
        *,
        timeout_s: float,
        block_s: float = 0.0,
    ) -> Any:
        """Execute `effect` at the server; return or raise what it returns or raises.

        An `effect` that returns `PENDING` will call `answer` on its exchange later, within `block_s`.
        """
        process = current_process()
        doomed = self._doomed(process, what)
        if doomed is not None and not doomed.sent:
            await self._die(process, what)
        if self.trace is not None:
            self.trace(process, link.name, what)
        exchange = self._send(process, link, effect, timeout_s, block_s)
        if doomed is not None:
            await self._die(process, what, stop_s=doomed.stop_s)
        deadline_s = self.loop.time() + timeout_s
        failed, value = await exchange.future
        if failed:
            raise value
        if self.loop.time() > deadline_s:  # we were stopped meanwhile: our own timer is due, too, and wins
            raise NoAnswer(silent=True)
        return value

    def _send(
        self,
        process: Process,
        link: Link,
        effect: Callable[[Exchange], Any],
        timeout_s: float,
        block_s: float,
    ) -> Exchange:
        dice = self.dice
        request_s, reply_s = 0.0002 + dice.random() * 0.001, 0.0002 + dice.random() * 0.001
        lose_request = lose_reply = False
        if not link.calm:
            roll = dice.random()
            lose_request = roll < link.lose_request
            lose_reply = not lose_request and dice.random() < link.lose_reply
            if dice.random() < link.slow:
                request_s += dice.random() * link.slow_s
                reply_s += dice.random() * link.slow_s
                self.faults["slow"] += 1
            elif dice.random() < link.linger:
                request_s += timeout_s
                self.faults["lingering request"] += 1
        exchange = Exchange(process, link, reply_s, lose_reply, self.loop.create_future(), self)
        if lose_request:
            self.faults["lost request"] += 1
            if dice.random() < 0.8:
                self.later(request_s, exchange._deliver, True, NoAnswer(silent=False))
            else:
                self.loop.call_later(timeout_s, exchange._deliver, True, NoAnswer(silent=True))
            return exchange
        if lose_reply:
            self.faults["lost reply"] += 1
        if request_s + reply_s + block_s > timeout_s:
            self.loop.call_later(timeout_s, exchange._deliver, True, NoAnswer(silent=True))
        self.later(request_s, self._arrive, exchange, effect)
        return exchange

    def _arrive(self, exchange: Exchange, effect: Callable[[Exchange], Any]) -> None:
        link = exchange.link
        if link.down or exchange.sender.name in link.cut:
            self.faults["refused"] += 1
            self.later(REFUSED_S, exchange._deliver, True, NotSent("connection refused"))
            return
        try:
            value = effect(exchange)
        except Exception as error:
            exchange.answer(error, failed=True)
        else:
            if value is not PENDING:
                exchange.answer(value)

    async def die(self, of: str) -> None:
        """Kill the process that is running. Never returns."""
        self.faults[f"killed by {of}"] += 1
        self.loop.kill(current_process())
        await self.loop.create_future()

    def _doomed(self, process: Process, what: str) -> Doom | None:
        doom = self.dooms.get(process.name)
        if doom is None or doom.what != what:
            return None
        doom.countdown -= 1
        if doom.countdown >= 0:
            return None
        del self.dooms[process.name]
        return doom

    async def _die(self, process: Process, what: str, *, stop_s: float = 0.0) -> None:
        if stop_s:
            self.faults[f"stopped at {what}"] += 1
            self.loop.stop_process(process)
            self.later(stop_s, self.loop.continue_process, process)
            return
        self.faults[f"killed at {what}"] += 1
        self.loop.kill(process)
        await self.loop.create_future()


class _Pending:
    """The result of an effect that will answer later."""


PENDING: Final = _Pending()
