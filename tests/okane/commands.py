"""Commands of okane run in this process, on the test's database, with a Redis that is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from okane.cli import app

Command = Callable[..., Awaitable[Result]]


def command_of(word: str) -> Callable[[str, Path, pytest.MonkeyPatch], Command]:
    """Return the fixture of a command: it runs `okane WORD` with more words."""

    @pytest.fixture
    def command(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("DATABASE_URL", database_url)
        monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
        monkeypatch.setenv("COLUMNS", "200")

        async def run(*words: str) -> Result:
            return await asyncio.to_thread(CliRunner().invoke, app, [word, *words])

        return run

    return command
