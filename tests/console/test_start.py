"""The start of a console process: what it refuses, and that it serves."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from okane.app import console as console_process
from okane.app import process
from okane.config import Settings
from okane.errors import SetupError


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1,192.0.2.1", "::", "console.example.com"])
def test_without_authentication_a_console_serves_loopback_only(host: str) -> None:
    with pytest.raises(SetupError, match="OKANE_CONSOLE_HOST on loopback"):
        console_process.check_binding(Settings(_env_file=None, auth="none", console_host=host))
    console_process.check_binding(Settings(_env_file=None, auth="keys", console_host=host))
    console_process.check_binding(Settings(_env_file=None, auth="none", console_host="localhost,::1"))


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop every process as soon as it has started."""
    stop = process.StopSignal()
    stop.set()
    monkeypatch.setattr(process, "stop_on_signals", lambda: stop)
    monkeypatch.setattr(process, "tune_gc", lambda: None)


def settings(database_url: str, redis_url: str, **changed: object) -> Settings:
    fields = {"database_url": database_url, "redis_url": redis_url, "console_port": 0, "drain": 0}
    return Settings(_env_file=None, **{**fields, **changed})  # type: ignore[arg-type]  # pydantic checks them


@pytest.mark.usefixtures("stopping")
async def test_a_console_starts_and_stops(database_url: str, redis_url: str) -> None:
    before = asyncio.all_tasks()
    await console_process.run_console(settings(database_url, redis_url))
    assert asyncio.all_tasks() == before


@pytest.mark.usefixtures("stopping")
async def test_a_console_with_an_unusable_secret_does_not_start(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    for secret in ("too-short", f"file:{tmp_path / 'nowhere'}"):
        with pytest.raises(SetupError, match="OKANE_CONSOLE_SECRET"):
            await console_process.run_console(settings(database_url, redis_url, console_secret=secret))
