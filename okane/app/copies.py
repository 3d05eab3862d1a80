"""Runs several copies of one of our processes on this machine: `okane api --processes 4`, `okane worker --processes 4`.

Promise: a copy that dies is started again, the others go on meanwhile; they end when this process is told to, and also when
it is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from okane import binding
from okane.config import Settings
from okane.errors import SetupError
from okane.local.okane_process import OKANE, own_path
from okane.local.processes import leashed

log = structlog.get_logger("okane.app.copies")

CANNOT_START = 2  # the exit code for what a user has to mend: starting again will not help
WELL_AFTER_S = 30.0  # a copy that lived this long was well; its next death is a new story
PAUSES_S = (0.2, 1.0, 2.0, 4.0, 8.0)  # before it is started again, by deaths in a row


@dataclass(frozen=True, slots=True)
class Command:
    """`okane ARGUMENTS` with `env` on top of our environment."""

    arguments: Sequence[str]
    env: Mapping[str, str]


async def run_copies(commands: Sequence[Command]) -> int:
    """Run all of `commands` until SIGTERM or SIGINT, and pass that on; a second one kills. Answers the exit code."""
    copies = [_Copy(command) for command in commands]
    loop = asyncio.get_running_loop()
    asked = 0

    def ask(number: int) -> None:
        nonlocal asked
        asked += 1
        for copy in copies:
            copy.end(signal.SIGTERM if asked == 1 else signal.SIGKILL)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask, number)
    keeping = [asyncio.create_task(copy.keep()) for copy in copies]
    codes: list[int] = []
    for kept in asyncio.as_completed(keeping):
        codes.append(await kept)
        if not asked:  # it cannot start, so neither can the others
            ask(signal.SIGTERM)
    return max(codes)


def of_api(settings: Settings, count: int) -> list[Command]:
    """So many API processes on one port. Raises SetupError if somebody else has it."""
    _check_free(settings.host, settings.port)
    address = ["--host", settings.host, "--port", str(settings.port)]
    return [Command(["api", *address], {"OKANE_SHARE_PORT": "true", **own}) for own in _metrics_ports(settings, count)]


def of_worker(settings: Settings, count: int, *, name: str) -> list[Command]:
    """So many workers of one consumer group: NAME-1, NAME-2, …"""
    return [
        Command(["worker", "--name", f"{name}-{number}", "--concurrency", str(settings.concurrency)], own)
        for number, own in enumerate(_metrics_ports(settings, count), start=1)
    ]


def _metrics_ports(settings: Settings, count: int) -> list[dict[str, str]]:
    """From the one that is set on; if none is, each takes a free one."""
    first = settings.metrics_port
    return [{"OKANE_METRICS_PORT": str(first + number)} if first else {} for number in range(count)]


def _check_free(host: str, port: int) -> None:
    """Copies of an earlier start would share the port with ours without a word."""
    if port == 0:
        raise SetupError("several processes need a port to share: set PORT")
    try:
        for one in binding.bind(host, port):
            one.close()
    except OSError as error:
        raise SetupError(f"cannot listen on {error.filename}: {error.strerror}") from error


class _Copy:
    def __init__(self, command: Command) -> None:
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._ending = asyncio.Event()

    def end(self, number: signal.Signals) -> None:
        """Send it this signal, and do not start it again."""
        self._ending.set()
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def keep(self) -> int:
        """Start it, and again whenever it dies, until it is to end or cannot start. Its exit code."""
        deaths, has_run = 0, False
        while True:
            started_s = time.monotonic()
            code = await self._run()
            if self._ending.is_set():
                return 0 if code == -signal.SIGTERM else abs(code)  # it was told to before it could listen
            if code == CANNOT_START and not has_run:
                return code
            has_run = True  # what keeps it from starting now may pass: a right that Redis took away and will give back
            deaths = 1 if time.monotonic() - started_s > WELL_AFTER_S else deaths + 1
            pause_s = PAUSES_S[min(deaths, len(PAUSES_S)) - 1]
            log.error("process_died", command=" ".join(self._command.arguments), exit_code=code, restart_in_s=pause_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._ending.wait()
                    return 0

    async def _run(self) -> int:
        # Tied to our life by the kernel, where it can: nobody is left behind when we are killed. In a session of its own,
        # so that a terminal's Ctrl-C reaches it once, through us.
        self._process = await asyncio.create_subprocess_exec(
            *leashed(signal.SIGTERM),
            *OKANE,
            *self._command.arguments,
            stdin=asyncio.subprocess.DEVNULL,
            env={**os.environ, **self._command.env, **own_path()},
            start_new_session=True,
        )
        return await self._process.wait()
