"""Several copies of one process on this machine: `okane api --processes 4`, `okane worker --processes 4`.

Promise: a copy that dies is started again while the others run on; all end when this process is stopped or killed.
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
from okane.local.processes import with_parent_death_signal

log = structlog.get_logger("okane.app.copies")

CANNOT_START = 2  # the exit code of a setup error: starting again does not help
HEALTHY_AFTER_S = 30.0  # a copy that ran for this long resets the pauses
PAUSES_S = (0.2, 1.0, 2.0, 4.0, 8.0)  # before it is started again, by deaths in a row


@dataclass(frozen=True, slots=True)
class Command:
    """`okane ARGUMENTS`, with `env` added to this process's environment."""

    arguments: Sequence[str]
    env: Mapping[str, str]


async def run_copies(commands: Sequence[Command]) -> int:
    """Run all `commands` until SIGTERM or SIGINT, which is passed on; a second one kills. Return the exit code."""
    copies = [_Copy(command) for command in commands]
    loop = asyncio.get_running_loop()
    signals = 0

    def end_all(number: int) -> None:
        nonlocal signals
        signals += 1
        for copy in copies:
            copy.end(signal.SIGTERM if signals == 1 else signal.SIGKILL)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end_all, number)
    keeping = [asyncio.create_task(copy.keep()) for copy in copies]
    codes: list[int] = []
    for kept in asyncio.as_completed(keeping):
        codes.append(await kept)
        if not signals:  # it cannot start, so neither can the others
            end_all(signal.SIGTERM)
    return max(codes)


def of_api(settings: Settings, count: int) -> list[Command]:
    """Return the commands of `count` API processes on one port. Raises SetupError if the port is taken."""
    _check_free(settings.host, settings.port)
    address = ["--host", settings.host, "--port", str(settings.port)]
    return [Command(["api", *address], {"OKANE_SHARE_PORT": "true", **own}) for own in _metrics_ports(settings, count)]


def of_worker(settings: Settings, count: int, *, name: str) -> list[Command]:
    """Return the commands of `count` workers of one consumer group: NAME-1, NAME-2, …"""
    return [
        Command(["worker", "--name", f"{name}-{number}", "--concurrency", str(settings.concurrency)], own)
        for number, own in enumerate(_metrics_ports(settings, count), start=1)
    ]


def _metrics_ports(settings: Settings, count: int) -> list[dict[str, str]]:
    """Number the metrics ports from the configured one on; without one each process takes a free port."""
    first = settings.metrics_port
    return [{"OKANE_METRICS_PORT": str(first + number)} if first else {} for number in range(count)]


def _check_free(host: str, port: int) -> None:
    """Raise SetupError if the port is taken: SO_REUSEPORT would share it silently with copies of an earlier start."""
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
        """Send this signal, and do not start the copy again."""
        self._ending.set()
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def keep(self) -> int:
        """Start the copy, again after each death, until it is ended or cannot start. Return its exit code."""
        deaths, has_run = 0, False
        while True:
            started_s = time.monotonic()
            code = await self._run()
            if self._ending.is_set():
                return 0 if code == -signal.SIGTERM else abs(code)  # the signal came before its handler was set
            if code == CANNOT_START and not has_run:
                return code
            has_run = True  # from now on a failed start may pass: a right that Redis revoked and will grant again
            deaths = 1 if time.monotonic() - started_s > HEALTHY_AFTER_S else deaths + 1
            pause_s = PAUSES_S[min(deaths, len(PAUSES_S)) - 1]
            log.error("process_died", command=" ".join(self._command.arguments), exit_code=code, restart_in_s=pause_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._ending.wait()
                    return 0

    async def _run(self) -> int:
        # The kernel ends it with this process where it can, so that no copy is left behind by a kill. In a session of its
        # own, a terminal's Ctrl-C reaches it once, through this process.
        self._process = await asyncio.create_subprocess_exec(
            *with_parent_death_signal(signal.SIGTERM),
            *OKANE,
            *self._command.arguments,
            stdin=asyncio.subprocess.DEVNULL,
            env={**os.environ, **self._command.env, **own_path()},
            start_new_session=True,
        )
        return await self._process.wait()
