"""`okane` processes that start in milliseconds: the fork server is started once by each pytest process."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from okane.local.okane_process import OKANE, OkaneProcess
from okane.local.processes import Child, Record, Stage, spawn

_PROGRAM = (sys.executable, "-P", "-m", "tests.fork_server")


class Forked:
    """The end of a forked process, in the manner of `subprocess.Popen`."""

    def __init__(self, ended: int) -> None:
        self._ended = ended
        self._code: int | None = None
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Return its exit code, or None while it runs."""
        return self._read(block=False)

    def wait(self) -> int:
        """Wait until it has ended; return its exit code."""
        code = self._read(block=True)
        assert code is not None
        return code

    def _read(self, *, block: bool) -> int | None:
        with self._lock:
            if self._code is None:
                os.set_blocking(self._ended, block)
                try:
                    said = os.read(self._ended, 16)
                except BlockingIOError:
                    return None
                self._code = int(said or -signal.SIGKILL)  # nothing: the server has ended, and this one with it
                os.close(self._ended)
            return self._code


class ForkServer:
    """A running `tests.fork_server`."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel, self._lock = ours, threading.Lock()
        with theirs, tempfile.NamedTemporaryFile(prefix="okane-fork-server-", suffix=".log", delete=False) as log:
            self._log = Path(log.name)
            self._child = spawn(
                name="fork server",
                command=[*_PROGRAM, str(theirs.fileno())],
                log=self._log,
                stages=(Stage(signal.SIGTERM, 5),),
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONUNBUFFERED": "1"},
                pass_fds=(theirs.fileno(),),
            )

    def fork(
        self, arguments: Sequence[str], env: Mapping[str, str], output: int, errors: int, *, folder: Path
    ) -> tuple[int, Forked]:
        """Start `okane ARGUMENTS` with these open files."""
        message = json.dumps({"arguments": arguments, "env": dict(env), "folder": str(folder)}).encode()
        ended, report = os.pipe()
        with self._lock:
            try:
                socket.send_fds(self._channel, [message], [output, errors, report])
                pid = int(self._channel.recv(16) or 0)
            except OSError as error:
                raise AssertionError(self._child.last_lines()) from error
            finally:
                os.close(report)
        assert pid, self._child.last_lines()
        return pid, Forked(ended)

    def stop(self) -> None:
        self._channel.close()
        self._child.stop()
        self._log.unlink()


@functools.cache
def start_server() -> ForkServer:
    """Start the server of this pytest process, once. It ends with the thread that calls this first."""
    server = ForkServer()
    atexit.register(server.stop)
    return server


def run_okane(*arguments: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `okane ARGUMENTS` in this environment, in the current folder, until it has ended."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        code = _begin(arguments, env, output, errors).wait()
        return subprocess.CompletedProcess(arguments, code, _text(output), _text(errors))


async def run_okane_beside(*arguments: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `okane ARGUMENTS` while the loop runs."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        code = await asyncio.to_thread(_begin(arguments, env, output, errors).wait)
        return subprocess.CompletedProcess(arguments, code, _text(output), _text(errors))


def _begin(arguments: Sequence[str], env: Mapping[str, str], output: IO[str], errors: IO[str]) -> Forked:
    _, process = start_server().fork(arguments, env, output.fileno(), errors.fileno(), folder=Path.cwd())
    return process


def _text(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


class ForkedOkaneProcess(OkaneProcess):
    """An `OkaneProcess` that is forked where that is the same: not with another program, or modules found elsewhere."""

    def _spawn(self) -> Child:
        if sys.platform != "linux" or self._program != OKANE or "PYTHONPATH" in self._env:
            return super()._spawn()
        with self._log.open("ab") as log:
            offset = log.tell()
            env, file = self.environment(), log.fileno()
            pid, process = start_server().fork(self._arguments, env, file, file, folder=Path.cwd())
        born_at_s = time.time()
        with contextlib.suppress(psutil.NoSuchProcess):
            born_at_s = psutil.Process(pid).create_time()
        record = Record(name=self.name, pid=pid, born_at_s=born_at_s, stages=self._stages)
        return Child(record=record, process=process, log=self._log, log_offset=offset)
