"""A handler that signals each message."""

from __future__ import annotations

import asyncio

from streams import (
    Done,
    Message,
    Outcome,
)


class RecordingHandler:
    """A handler that signals every body it handles."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self._changed = asyncio.Condition()

    async def __call__(self, message: Message) -> Outcome:
        async with self._changed:
            self.bodies.append(message.body)
            self._changed.notify_all()
        return Done()

    async def wait_for(self, body: bytes) -> None:
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(lambda: body in self.bodies)
