"""A node whose replies a test scripts, and which keeps what it was sent."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable

from tests.streams.servers import HOST, ListeningServer

Words = list[bytes]
Reply = Callable[[Words], Awaitable[str | None]]


async def _ok(_: Words) -> str:
    return "+OK"


class ScriptedNode(ListeningServer):
    """Answers each command with the text of `reply`, and says nothing for None. `map` is its reply to CLUSTER SLOTS, and
    `maps` counts those. `commands` are all others, in order; `connections` counts those that are open, `made` all."""

    def __init__(self, reply: Reply = _ok, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls=tls)
        self.reply = reply
        self.map: Reply = _ok
        self.maps = 0
        self.commands: list[Words] = []
        self.connections = 0
        self.made = 0

    @property
    def names(self) -> list[str]:
        """The names of the commands that it was sent."""
        return [words[0].decode() for words in self.commands]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.made += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                words = [await _word(reader) for _ in range(int((await reader.readuntil(b"\r\n"))[1:]))]
                if words[:2] == [b"CLUSTER", b"SLOTS"]:
                    self.maps += 1
                    text = await self.map(words)
                elif words[0] == b"CLIENT":  # redis-py introduces itself
                    text = "+OK"
                else:
                    self.commands.append(words)
                    text = await self.reply(words)
                if text == HANG_UP:
                    break
                if text is not None:
                    writer.write(text.encode() + b"\r\n")
        self.connections -= 1
        self._writers.discard(writer)
        writer.close()


HANG_UP = "hang up"


async def _word(reader: asyncio.StreamReader) -> bytes:
    length = int((await reader.readuntil(b"\r\n"))[1:])
    return (await reader.readexactly(length + 2))[:-2]


def slots(*ranges: tuple[int, int, ScriptedNode]) -> Reply:
    """Return a map: first slot, last slot, and the node that has them."""
    parts = [f"*{len(ranges)}"]
    for first, last, node in ranges:
        parts += ["*3", f":{first}", f":{last}", "*3", f"${len(HOST)}", HOST, f":{node.port}", "$2", "id"]

    async def reply(_: Words) -> str:
        return "\r\n".join(parts)

    return reply


def says(text: str | None) -> Reply:
    """Return a script that answers everything with this text."""

    async def reply(_: Words) -> str | None:
        return text

    return reply
