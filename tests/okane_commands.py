"""Whole systems for tests that are programs themselves: `okane WORDS` as a process, and `okane up` until it is up."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator

from okane.local.data_folder import DataFolder, Endpoints
from okane.local.okane_process import OKANE

LONGEST_S = 600.0
_UP_TIMEOUT_S = 180.0


@contextlib.asynccontextmanager
async def running(*words: str, env: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `okane WORDS` inside the block, with its output to ours; end it by its pid if it still runs then."""
    process = await asyncio.create_subprocess_exec(*OKANE, *words, env=env)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            await asyncio.wait_for(process.wait(), LONGEST_S)


async def endpoints_of(data: DataFolder, up: asyncio.subprocess.Process) -> Endpoints:
    """Return the addresses of an `okane up`, once it is up."""
    async with asyncio.timeout(_UP_TIMEOUT_S):
        while (where := data.endpoints()) is None:
            assert up.returncode is None, "okane up has ended"
            await asyncio.sleep(0.1)
    return where
