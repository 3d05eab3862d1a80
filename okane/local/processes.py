"""Start, identify and end processes of this machine.

Owns a process from fork to its end. Promises: a child dies with its parent (see `parent_death`), its time of birth tells it
from another process with the same pid, and it is ended in stages, the gentlest first, even while it is stopped.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import psutil

from okane.local import parent_death

# The clock behind a process's time of birth may be stepped between two readings; a pid is reused much later.
_SAME_BIRTH_S = 5.0
_POLL_S = 0.02
_HURRIED_PATIENCE_S = 1.0
_LEFTOVER_PATIENCE_S = 5.0
_KILL_PATIENCE_S = 10.0  # a process in the middle of a disk write dies only after it
# The search paths, the temporary folder and the time zone; not HOME, which is another user's.
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR", "TZ", "TZDIR")
_LOG_LIMIT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of ending a process: the signal, and the seconds until the next one (the last: kill -9)."""

    signal: int
    patience_s: float


@dataclass(frozen=True, slots=True)
class Account:
    """The user a process runs as."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Record:
    """The data by which another process identifies a process (pid and birth, in seconds since 1970) and ends it."""

    name: str
    pid: int
    born_at_s: float
    stages: tuple[Stage, ...]

    def find(self) -> psutil.Process | None:
        """Return the process, or None when it is gone and its pid is free or reused."""
        try:
            process = psutil.Process(self.pid)
            born_at_s, status = process.create_time(), process.status()
        except psutil.NoSuchProcess:
            return None
        if status == psutil.STATUS_ZOMBIE or abs(born_at_s - self.born_at_s) > _SAME_BIRTH_S:
            return None
        return process


class Started(Protocol):
    """The end of a started process: a `subprocess.Popen`."""

    def poll(self) -> int | None:
        """Return its exit code, or None while it runs."""

    def wait(self) -> int:
        """Wait until it has ended; return its exit code."""


class Child:
    """A process that this process started."""

    def __init__(self, *, record: Record, process: Started, log: Path, log_offset: int = 0) -> None:
        self.record = record
        self.log = log
        self._log_offset = log_offset
        self._process = process

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def pid(self) -> int:
        return self.record.pid

    def last_lines(self, count: int = 15) -> str:
        """Return the last `count` lines of its log, indented, under a line that names the file."""
        with self.log.open("rb") as file:
            file.seek(max(self._log_offset, self.log.stat().st_size - 16_384))
            lines = file.read().decode(errors="replace").splitlines()
        return "\n".join([f"The end of {self.log}:", *(f"  {line}" for line in lines[-count:])])

    def exit_code(self) -> int | None:
        """Return None while it runs, and the negative signal number if a signal ended it."""
        return self._process.poll()

    def wait(self) -> int:
        """Wait until it ends by itself; return its exit code."""
        return self._process.wait()

    def stop(self, *, hurry: threading.Event | None = None) -> int:
        """End it by its stages, which `hurry` shortens; return its exit code."""
        if self.exit_code() is None:
            _end(psutil.Process(self.pid), self.record.stages, lambda: self.exit_code() is not None, hurry)
        return self._process.wait()

    def kill(self) -> None:
        """kill -9, all that it started included; returns when they are gone."""
        if self.exit_code() is None:
            _end(psutil.Process(self.pid), (), lambda: self.exit_code() is not None, None)
        self._process.wait()


def spawn(
    *,
    name: str,
    command: Sequence[str | os.PathLike[str]],
    log: Path,
    stages: Sequence[Stage],
    env: Mapping[str, str] | None = None,
    account: Account | None = None,
    pass_fds: Sequence[int] = (),
) -> Child:
    """Start `command` in its own session (Ctrl-C reaches only this process), with its output appended to `log`.

    On Linux it gets the first stage's signal when the calling *thread* ends: call it from a thread that outlives it.
    """
    if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
        log.replace(log.with_name(log.name + ".1"))
    with log.open("ab") as output:
        log_offset = output.tell()
        process = subprocess.Popen(  # noqa: S603 - the command comes from our own code
            [*with_parent_death_signal(stages[0].signal, account), *(os.fspath(part) for part in command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            pass_fds=pass_fds,
            start_new_session=True,
        )
    try:
        born_at_s = psutil.Process(process.pid).create_time()
    except psutil.NoSuchProcess:  # unreaped children stay visible, so this is a system that hides them
        born_at_s = time.time()
    record = Record(name=name, pid=process.pid, born_at_s=born_at_s, stages=tuple(stages))
    return Child(record=record, process=process, log=log, log_offset=log_offset)


def server_environment() -> dict[str, str]:
    """Return the environment of the embedded servers, without secrets and addresses of other servers."""
    return {**{name: os.environ[name] for name in _INHERITED if name in os.environ}, "LC_ALL": "C"}


def with_parent_death_signal(number: int, account: Account | None = None) -> list[str]:
    """Return the prefix that makes a command run as this user and get this signal when this process ends."""
    become = f"{account.uid}:{account.gid}" if account else ""
    return [sys.executable, "-I", "-S", parent_death.__file__, str(os.getpid()), str(int(number)), become]


def end_leftover(record: Record) -> bool:
    """End a process that an earlier supervisor left running. Return False when it was gone already."""
    process = record.find()
    if process is None:
        return False
    # Shorter than for a child of this process: the servers it would drain into died with its supervisor.
    stages = [Stage(stage.signal, min(stage.patience_s, _LEFTOVER_PATIENCE_S)) for stage in record.stages]
    _end(process, stages, lambda: record.find() is None, None)
    return True


def _end(
    process: psutil.Process, stages: Sequence[Stage], gone: Callable[[], bool], hurry: threading.Event | None
) -> None:
    for stage in stages:
        _signal(process, stage.signal)
        _signal(process, signal.SIGCONT)  # a stopped process handles no other signal before this one
        if _becomes_true(gone, stage.patience_s, hurry):
            return
    try:
        orphans = process.children(recursive=True)
    except psutil.NoSuchProcess:
        orphans = []
    for member in (process, *orphans):
        _signal(member, signal.SIGKILL)
    # The orphans too: they hold ports, files and shared memory as long as they live.
    _becomes_true(lambda: gone() and not any(_lives(orphan) for orphan in orphans), _KILL_PATIENCE_S, None)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _becomes_true(condition: Callable[[], bool], patience_s: float, hurry: threading.Event | None) -> bool:
    started_at = time.monotonic()
    while not condition():
        hurried = hurry is not None and hurry.is_set()
        if time.monotonic() - started_at > (min(patience_s, _HURRIED_PATIENCE_S) if hurried else patience_s):
            return False
        time.sleep(_POLL_S)
    return True


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


class Roster:
    """The list of running children in the data folder, for the supervisor that follows a killed one.

    It is replaced by rename, so that a reader sees the old list or the new one. Its writer holds the folder's lock.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: dict[str, Record] = {}

    def load(self) -> list[Record]:
        """Return the children of the last writer (none, if there was no writer or the list is unreadable)."""
        try:
            rows = json.loads(self._path.read_text())
            return [Record(**{**row, "stages": tuple(Stage(**stage) for stage in row["stages"])}) for row in rows]
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return []

    def add(self, record: Record) -> None:
        self._records[record.name] = record
        self._write()

    def discard(self, name: str) -> None:
        if self._records.pop(name, None) is not None:
            self._write()

    def clear(self) -> None:
        self._records.clear()
        self._write()

    def _write(self) -> None:
        draft = self._path.with_suffix(".new")
        draft.write_text(json.dumps([asdict(record) for record in self._records.values()], indent=1))
        draft.replace(self._path)
