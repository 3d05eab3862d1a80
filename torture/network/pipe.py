"""One direction of one proxied connection: passes what comes in at one end to the other, or breaks it as a fault says.

Promise: the order of bytes, and of the end of the stream among them, is kept whatever happens; memory is bounded, because
a source whose bytes cannot go on is not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never, cast

from torture.network.link_faults import (
    Blackhole,
    Direction,
    Drip,
    Fault,
    Latency,
    LoseReplies,
    Refuse,
    Stall,
    strikes,
)

_KEPT_BYTES = 1 << 20
_NEVER = float("inf")
_RST = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: close sends RST instead of FIN


class StreamEnd(enum.Enum):
    """The end of a stream: closed, or reset."""

    FIN = enum.auto()
    RST = enum.auto()


@dataclass(slots=True)
class ByteCount:
    """Bytes that came in, over all connections of a proxy; `swallowed` are those of them that never went on."""

    received: int = 0
    swallowed: int = 0


class End(asyncio.Protocol):
    """One socket of a connection: `incoming` takes what it receives, `outgoing` brings what it sends."""

    __slots__ = ("gone", "incoming", "on_gone", "outgoing", "transport")

    def __init__(self, on_gone: Callable[[], None]) -> None:
        self.incoming: Pipe
        self.outgoing: Pipe
        self.on_gone = on_gone
        self.transport: asyncio.Transport | None = None
        self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.outgoing.pump()

    def data_received(self, data: bytes) -> None:
        self.incoming.take(data)

    def eof_received(self) -> bool:
        self.incoming.end(StreamEnd.FIN)
        return True  # the other direction may go on

    def connection_lost(self, error: Exception | None) -> None:
        self.gone = True
        self.outgoing.block()
        if error is not None:  # otherwise it was us
            self.incoming.end(StreamEnd.RST)
        self.on_gone()

    def pause_writing(self) -> None:
        self.outgoing.hold(True)

    def resume_writing(self) -> None:
        self.outgoing.hold(False)

    def reset(self) -> None:
        """Break it off with RST."""
        if self.transport is not None and not self.gone:
            with contextlib.suppress(OSError, ValueError):  # closed already, and we are still to hear of it
                reset_on_close(self.transport.get_extra_info("socket"))
            self.transport.abort()


class Pipe:
    """From `source` to `sink`. `on_broken` is called when the connection must be reset, `on_ended` after the last byte."""

    __slots__ = (
        "_dice",
        "_direction",
        "_ended",
        "_fault",
        "_held",
        "_kept",
        "_kept_bytes",
        "_on_broken",
        "_on_ended",
        "_passing",
        "_paused",
        "_sink",
        "_source",
        "_swallowed",
        "_tally",
        "_timer",
        "delivered_all",
    )

    def __init__(
        self,
        direction: Direction,
        *,
        source: End,
        sink: End,
        fault: Fault | None,
        tally: ByteCount,
        dice: random.Random,
        on_broken: Callable[[], None],
        on_ended: Callable[[], None],
    ) -> None:
        self._direction = direction
        self._source = source
        self._sink = sink
        self._fault = fault if strikes(fault, direction) else None
        self._tally = tally
        self._dice = dice
        self._on_broken = on_broken
        self._on_ended = on_ended
        self._kept: deque[tuple[float, memoryview | StreamEnd]] = deque()  # when it is due, and what
        self._kept_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._passing = False  # nothing is in the way: not a fault, not a sink that is still to connect
        self._ended = False
        self._held = False  # the sink takes no more for now
        self._paused = False
        self._swallowed = 0
        self.delivered_all = False
        source.incoming = self
        sink.outgoing = self

    def take(self, data: bytes) -> None:
        """Bytes from the source."""
        self._tally.received += len(data)
        if self._passing:
            assert self._sink.transport is not None
            self._sink.transport.write(data)
        else:
            self._treat(memoryview(data), len(data))

    def end(self, how: StreamEnd) -> None:
        """The source will send no more."""
        if self._ended and how is StreamEnd.FIN:
            return  # said again after a pause in reading
        self._ended = True
        self._treat(how, 0)

    def change(self, fault: Fault | None) -> None:
        """Heal what is in force, then put `fault` in force: what was kept goes on, what lost bytes is broken off."""
        self._stop_timer()
        if self._swallowed:
            self._on_broken()
            return
        self._fault = fault if strikes(fault, self._direction) else None
        self._kept = deque((0.0, item) for _, item in self._kept)
        self.pump()

    def hold(self, held: bool) -> None:
        """The sink is full, or no longer."""
        self._held = held
        self._regulate()

    def pump(self) -> None:
        """Deliver what is due. To be called whenever something may have become so."""
        if self._sink.transport is None:
            return
        now = asyncio.get_running_loop().time()
        while self._kept and self._kept[0][0] <= now:
            self._deliver(self._kept.popleft()[1])
        self._passing = self._fault is None and not self._kept and not self._sink.gone
        self._arm()
        self._regulate()

    def block(self) -> None:
        """The sink is gone: what still comes goes nowhere."""
        self._passing = False

    def close(self) -> None:
        """Both ends are gone: forget everything."""
        self._stop_timer()
        self._kept.clear()
        self._kept_bytes = 0

    def _treat(self, item: memoryview | StreamEnd, size: int) -> None:
        match self._fault:
            case None | Refuse():
                self._keep(item, size, due_s=0.0)
            case Latency(delay_ms=delay_ms, jitter_ms=jitter_ms):
                due_s = asyncio.get_running_loop().time() + (delay_ms + jitter_ms * self._dice.random()) / 1000
                self._keep(item, size, due_s=max(due_s, self._kept[-1][0] if self._kept else 0.0))
            case Stall() | Drip():
                self._keep(item, size, due_s=_NEVER)
            case Blackhole():
                self._swallow(size)
            case LoseReplies(after_bytes=after_bytes):
                self._swallow(size)
                if self._swallowed >= after_bytes or isinstance(item, StreamEnd):
                    self._on_broken()
            case _:
                assert_never(self._fault)

    def _keep(self, item: memoryview | StreamEnd, size: int, *, due_s: float) -> None:
        self._kept.append((due_s, item))
        self._kept_bytes += size
        self.pump()

    def _swallow(self, size: int) -> None:
        self._swallowed += size or 1  # a swallowed end breaks the stream as a swallowed byte does
        self._tally.swallowed += size

    def _deliver(self, item: memoryview | StreamEnd) -> None:
        transport = self._sink.transport
        assert transport is not None
        match item:
            case StreamEnd.RST:
                self._sink.reset()
            case StreamEnd.FIN:
                with contextlib.suppress(OSError):  # the peer may have broken it off, and we are still to hear of it
                    if not transport.is_closing():
                        transport.write_eof()
                self.delivered_all = True
                self._on_ended()
            case memoryview():
                self._kept_bytes -= len(item)
                if not transport.is_closing():
                    transport.write(item)
            case _:
                assert_never(item)

    def _arm(self) -> None:
        """Set the timer for the first of what is kept."""
        if self._timer is not None or not self._kept:
            return
        loop = asyncio.get_running_loop()
        if isinstance(self._fault, Drip):
            self._timer = loop.call_later(self._fault.every_ms / 1000, self._drip, self._fault.chunk_bytes)
        elif self._kept[0][0] < _NEVER:
            self._timer = loop.call_at(self._kept[0][0], self._due)

    def _due(self) -> None:
        self._timer = None
        self.pump()

    def _drip(self, chunk_bytes: int) -> None:
        self._timer = None
        if self._kept and self._sink.transport is not None:
            _, item = self._kept.popleft()
            if isinstance(item, memoryview) and len(item) > chunk_bytes:
                self._kept.appendleft((_NEVER, item[chunk_bytes:]))
                item = item[:chunk_bytes]
            self._deliver(item)
        self.pump()

    def _regulate(self) -> None:
        """Read from the source as long as its bytes can go on."""
        pause = self._held or self._kept_bytes >= _KEPT_BYTES
        transport = self._source.transport
        if pause is self._paused or transport is None or transport.is_closing():
            return
        self._paused = pause
        if pause:
            transport.pause_reading()
        else:
            transport.resume_reading()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def reset_on_close(connection: socket.socket | None) -> None:
    """Let the close of this socket be a RST. Does nothing if it is closed already: a transport of uvloop then has none."""
    if connection is None or connection.fileno() < 0:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
