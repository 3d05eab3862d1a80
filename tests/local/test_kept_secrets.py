"""The secrets of a data folder: made once, readable by their owner, and never in the place of one that the user set."""

from __future__ import annotations

from pathlib import Path

from okane.config import Settings
from okane.console.secret import load_signer
from okane.local.kept_secrets import console_environment, webhook_environment


def test_the_secret_of_sessions_is_made_once(tmp_path: Path) -> None:
    kept, settings = tmp_path / "console-secret", Settings(_env_file=None)
    env = console_environment(settings, kept)
    first = kept.read_text()
    assert env == {"OKANE_CONSOLE_SECRET": f"file:{kept}"}
    assert console_environment(settings, kept) == env
    assert kept.read_text() == first
    assert kept.stat().st_mode & 0o077 == 0
    load_signer(env["OKANE_CONSOLE_SECRET"])


def test_a_secret_that_the_user_set_stays(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, console_secret="a" * 32, webhook_master="b" * 32)
    assert console_environment(settings, tmp_path / "console-secret") == {}
    assert "OKANE_WEBHOOK_MASTER" not in webhook_environment(settings, tmp_path / "webhook-master")
    assert list(tmp_path.iterdir()) == []
