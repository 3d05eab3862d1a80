"""`okane reconcile` beside a mock provider with chosen books."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from okane.cli import app
from okane.simulator.app import serving
from okane.simulator.options import SimulatorOptions
from tests.okane.money_days import DAY
from tests.okane.provider_days import Books

TEXT_DAY = DAY.date().isoformat()
Command = Callable[..., Awaitable[Result]]


@contextlib.asynccontextmanager
async def reconciling(
    database_url: str, redis_url: str, books: Books, folder: Path, patch: pytest.MonkeyPatch
) -> AsyncIterator[Command]:
    """Yield the command. The mock provider has these books, which are written before the first call."""
    patch.chdir(folder)
    patch.setenv("DATABASE_URL", database_url)
    patch.setenv("REDIS_URL", redis_url)
    patch.setenv("COLUMNS", "250")
    patch.setattr("okane.reconcile.resolve.WAIT_S", 0.0)  # no worker runs here, unless a test says so
    async with contextlib.AsyncExitStack() as closing:
        url = ""

        async def run(*words: str, day: str = TEXT_DAY) -> Result:
            nonlocal url
            if not url:
                journal = folder / "provider.jsonl"
                await asyncio.to_thread(books.write, journal)
                options = SimulatorOptions(port=0, journal=journal, fee_bps=150)
                url = await closing.enter_async_context(serving(options))
                patch.setenv("PROVIDER_BASE_URL", url)
            words = ("reconcile", "--provider", "http", "--day", day, *words)
            return await asyncio.to_thread(CliRunner().invoke, app, words)

        yield run


def document(result: Result) -> dict[str, Any]:
    """Return what `--json` has printed."""
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    found: dict[str, Any] = json.loads(result.stdout)
    return found
