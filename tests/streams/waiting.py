"""A handler that signals each message."""

from __future__ import annotations

import asyncio

from streams import (
    Done,
    Message,
    Outcome,
)


class Bell:
    """A handler that signals every body it handles."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self._rung = asyncio.Condition()

    async def __call__(self, message: Message) -> Outcome:
        async with self._rung:
            self.bodies.append(message.body)
            self._rung.notify_all()
        return Done()

    async def heard(self, body: bytes) -> None:
        async with asyncio.timeout(20), self._rung:
            await self._rung.wait_for(lambda: body in self.bodies)
