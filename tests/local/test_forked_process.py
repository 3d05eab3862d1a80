"""The processes of flow tests are forked; they behave as if each had been started."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from okane.local.okane_process import answers_http
from tests.forked_process import ForkedOkaneProcess, run_okane, run_okane_beside


@pytest.fixture
def provider(tmp_path: Path, free_port: int) -> ForkedOkaneProcess:
    """A provider that is not started yet."""
    return ForkedOkaneProcess(
        name="provider",
        arguments=["provider", "--port", str(free_port), "--journal", str(tmp_path / "journal.jsonl")],
        env={"LOG_LEVEL": "info"},
        log=tmp_path / "provider.log",
        probe=answers_http(free_port, "/health"),
        drain_s=5,
    )


def test_a_process_has_a_session_a_folder_and_a_log_of_its_own(
    provider: ForkedOkaneProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    provider.start()
    assert provider.child is not None
    pid = provider.child.pid
    assert os.getsid(pid) == pid
    assert psutil.Process(pid).cwd() == str(tmp_path)
    assert {file.fd for file in psutil.Process(pid).open_files()} >= {1, 2}
    provider.stop()
    assert provider.child.exit_code() == 0
    assert not psutil.pid_exists(pid)
    assert "provider" in (tmp_path / "provider.log").read_text()
    assert (tmp_path / "journal.jsonl").exists()


def test_a_killed_process_and_its_next_life_are_told_apart(provider: ForkedOkaneProcess) -> None:
    provider.start()
    first = provider.child
    assert first is not None
    provider.kill()
    assert first.exit_code() == -signal.SIGKILL
    provider.start()
    assert provider.child is not None
    assert provider.child.pid != first.pid
    assert provider.child.exit_code() is None
    provider.stop()


async def test_a_command_has_an_environment_outputs_and_an_exit_code_of_its_own() -> None:
    done = run_okane("--version", env={**os.environ})
    assert (done.returncode, done.stdout.startswith("okane "), done.stderr) == (0, True, "")
    done = await run_okane_beside("status", env={**os.environ, "DATABASE_URL": "nonsense"})
    assert (done.returncode, done.stdout) == (2, "")
    assert "DATABASE_URL" in done.stderr
    done = run_okane("openapi", env={**os.environ})
    assert (done.returncode, done.stdout[0]) == (0, "{")
