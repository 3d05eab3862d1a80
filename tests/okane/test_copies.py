"""`okane api --processes N` as a user runs it: one port, several processes, and none left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from okane.app import copies
from okane.local.okane_process import answers_http
from okane.local.ports import free_port as find_free_port

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Start]:
    """Start `okane ARGUMENTS`; killed after the test, if it is still there."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*arguments: str) -> subprocess.Popen[bytes]:
        env = {**os.environ, "DATABASE_URL": database_url, "REDIS_URL": redis_url, "OKANE_STREAM": tmp_path.name}
        with (tmp_path / f"{len(started)}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "okane", *arguments], env=env, cwd=tmp_path, stdout=log, stderr=log
            )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def listeners(parent: subprocess.Popen[bytes], port: int) -> set[int]:
    """The pids of its copies that listen on the port."""
    found = set[int]()
    for child in psutil.Process(parent.pid).children():
        with contextlib.suppress(psutil.Error):
            found |= {
                child.pid for each in child.net_connections() if each.status == "LISTEN" and each.laddr.port == port
            }
    return found


def test_copies_share_a_port_and_one_that_dies_comes_back(start: Start) -> None:
    port = find_free_port()
    parent = start("api", "--port", str(port), "--processes", "3")
    until(lambda: len(listeners(parent, port)) == 3)
    before = listeners(parent, port)
    os.kill(min(before), signal.SIGKILL)
    until(lambda: len(listeners(parent, port) - {min(before)}) == 3)
    until(answers_http(port, "/v1/health"))
    children = psutil.Process(parent.pid).children()
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(60) == 0
    assert not any(child.is_running() for child in children)


def test_copies_do_not_outlive_a_killed_parent(start: Start, tmp_path: Path) -> None:
    parent = start("worker", "--processes", "2", "--name", "w")
    log = tmp_path / "0.log"
    assert parent.wait(60) == 2  # no PROVIDER_BASE_URL: none of them can start, and it says so
    assert "PROVIDER_BASE_URL" in log.read_text()
    port = find_free_port()
    parent = start("api", "--port", str(port), "--processes", "2")
    until(lambda: len(listeners(parent, port)) == 2)
    children = psutil.Process(parent.pid).children()
    parent.kill()
    until(lambda: not any(child.is_running() and child.status() != "zombie" for child in children))


def test_a_port_that_others_share_is_refused(start: Start, tmp_path: Path) -> None:
    port = find_free_port()
    first = start("api", "--port", str(port), "--processes", "2")
    until(lambda: len(listeners(first, port)) == 2)
    second = start("api", "--port", str(port), "--processes", "2")
    assert second.wait(60) == 2
    assert "cannot listen" in (tmp_path / "1.log").read_text()
    assert urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/health").status == 200


async def test_a_copy_that_has_run_is_started_again_even_if_it_cannot_start_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis may have taken a right from it meanwhile, and give it back: the other copies go on, and it comes back."""
    runs, program = tmp_path / "runs", tmp_path / "program.py"
    program.write_text(
        "import os, pathlib, signal, sys\n"
        f"runs = pathlib.Path({str(runs)!r})\n"
        "number = len(runs.read_text()) if runs.exists() else 0\n"
        "runs.write_text('x' * (number + 1))\n"
        "sys.exit((1, 2)[number]) if number < 2 else signal.pause()\n"
    )
    monkeypatch.setattr(copies, "OKANE", (sys.executable, str(program)))
    monkeypatch.setattr(copies, "PAUSES_S", (0.01,))
    copy = copies._Copy(copies.Command([], {}))
    keeping = asyncio.create_task(copy.keep())
    async with asyncio.timeout(30):
        while not runs.exists() or len(runs.read_text()) < 3:
            await asyncio.sleep(0.02)
        copy.end(signal.SIGTERM)
        assert await keeping == 0
