"""Statements and comparisons of days whose payments were archived."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from okane.cli import app
from okane.store.partition_bounds import DAY, TABLES
from okane.store.partition_conversion import convert

NOW = datetime.now(UTC)
WORDS = {
    "report": ("report", "--csv"),
    "reconcile": ("reconcile", "--provider", "http"),
}


@pytest.mark.parametrize("what", WORDS)
async def test_an_archived_day_is_refused_and_a_later_one_is_not(
    what: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would look like a day on which no money moved, or of which everything is missing."""
    monkeypatch.chdir(tmp_path)
    away = "127.0.0.1:1"
    settings = {"DATABASE_URL": database_url, "REDIS_URL": f"redis://{away}", "PROVIDER_BASE_URL": f"http://{away}"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        "okane.providers.okane_http.records.OkaneHttpListing.__init__.__kwdefaults__", {"pauses_s": (0.0,)}
    )
    with psycopg.connect(database_url, autocommit=True) as connection:
        first = convert(connection, every=50 * DAY, ahead=150 * DAY, now=NOW - 100 * DAY, pause_s=0.01)

        async def run(day: datetime) -> str:
            words = [*WORDS[what], "--day", f"{day:%Y-%m-%d}"]
            return str((await asyncio.to_thread(CliRunner().invoke, app, words)).exception)

        assert "were archived" not in await run(first.end - DAY)
        for table in TABLES:
            connection.execute(f"DROP TABLE {first.table(table)}".encode())
        assert "were archived (okane archive)" in await run(first.end - DAY)
        assert "were archived" not in await run(first.end)
