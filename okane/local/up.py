"""`okane up`: everything on one machine, under one supervisor, until Ctrl-C.

Starts the servers, applies the schema, starts the processes of okane, and restarts what dies. Stops in the order of a
payment: the API first, then the workers finish their payments, the dispatcher sends their events, then the servers.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from okane.config import Settings
from okane.errors import SetupError
from okane.local.data_folder import DataFolder, default_path, lock_data_folder
from okane.local.first_key import first_key
from okane.local.options import UpOptions
from okane.local.programs import CONSOLE, DISPATCHER, Programs
from okane.local.screen import LogTail, Screen, summary
from okane.local.server import Server
from okane.local.supervisor import Supervisor
from okane.store.schema import migrate

T = TypeVar("T")

_TAIL_S = 0.25
_SLOW_S = 2.0


async def up(settings: Settings, options: UpOptions, screen: Screen | None = None) -> int:
    """Run everything until SIGINT, SIGTERM or SIGHUP; a second signal shortens the drain. Return the exit code.

    A server that `settings` name (`database_url`, `redis`, `provider_base_url`) replaces the embedded one.
    """
    screen = screen or Screen()
    try:
        with lock_data_folder(options.data or default_path(), report=screen.print_event) as folder:
            programs = Programs(settings=settings, options=options, folder=folder, report=screen.print_event)
            return await _Run(settings=settings, programs=programs, folder=folder, screen=screen).run()
    except SetupError as error:
        screen.print_error(str(error))
        return 1


class _Run:
    """One run of `up`, from the first start to the last stop."""

    def __init__(self, *, settings: Settings, programs: Programs, folder: DataFolder, screen: Screen) -> None:
        self._settings = settings
        self._programs = programs
        self._folder = folder
        self._screen = screen
        self._roster = folder.roster
        self._stop = asyncio.Event()
        self._hurry = threading.Event()
        # In the order of starting. They stop in reverse order, one list at a time.
        self._groups: list[list[Supervisor]] = []
        lease_s = settings.lease.total_seconds()
        self._consequences = {
            "worker": f"; its payments are taken over after the lease ({lease_s:g} s)",
            DISPATCHER: "; it repeats the events that were in flight",
            CONSOLE: "; payments do not notice, and its open pages recover by themselves",
            "postgres": "; acknowledged payments are on disk, the API answers 503 meanwhile",
            "redis": "; payments are accepted meanwhile, the sweep wakes them up",
        }

    async def run(self) -> int:
        """Return the exit code: 1 when a program cannot start, or dies again and again, which is printed."""
        with self._signals():
            try:
                await self._until_stopped()
            except SetupError as error:
                self._screen.print_error(str(error))  # now, not after the drain
                return 1
            finally:
                self._folder.withdraw()
                await self._stop_all()
        return 0

    async def _until_stopped(self) -> None:
        async with _task(self._stop.wait()) as stopped:
            async with _task(self._start()) as starting:
                await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
                if not starting.done():
                    return
                starting.result()
            async with _task(self._supervise()) as supervising:
                await asyncio.wait([supervising, stopped], return_when=asyncio.FIRST_COMPLETED)
                if supervising.done():
                    supervising.result()

    async def _start(self) -> None:
        started_at = time.monotonic()
        programs = self._programs
        with self._screen.console.status("starting"):
            # Before anything runs: the first time it installs a simulator's packages, or finds no Python for them.
            if programs.provider is not None:
                await asyncio.to_thread(programs.provider.prepare)
            async with _task(self._report_slow_start()):
                await self._start_together([programs.postgres], [programs.redis])
                where = programs.endpoints()
                await migrate(where.database_url, report=self._screen.print_event)
                where = replace(where, api_key=await self._first_key(where.database_url))
                # The provider too: it takes as long to import as the others, and a worker that calls it too early retries.
                await self._start_together(
                    [programs.provider],
                    [programs.dispatcher()],
                    programs.workers(),
                    [programs.api(), programs.console()],
                )
        self._folder.publish(where)
        pids = {supervisor.name: supervisor.pid for group in self._groups for supervisor in group}
        title = f"okane is up after {time.monotonic() - started_at:.1f} s. Ctrl-C drains and stops it."
        folder = self._folder
        rows, command = summary(where, data=folder.path, logs=folder.logs, pids=pids, kept_key=folder.api_key)
        self._screen.block(title, rows, command)

    async def _start_together(self, *groups: Sequence[Server | None]) -> None:
        """Start all of them concurrently; each group is stopped on its own later."""
        new = [[self._supervisor(server) for server in group if server is not None] for group in groups]
        self._groups.extend(new)
        await _together(supervisor.start() for group in new for supervisor in group)

    async def _first_key(self, database_url: str) -> str | None:
        if self._settings.auth == "none":
            return None
        return await first_key(database_url, mode=self._settings.mode, kept_in=self._folder.api_key)

    def _supervisor(self, server: Server) -> Supervisor:
        kind = server.name.partition("-")[0]
        consequence = self._consequences.get(kind, "")
        return Supervisor(server=server, roster=self._roster, report=self._screen.print_event, consequence=consequence)

    async def _supervise(self) -> None:
        supervisors = [supervisor for group in self._groups for supervisor in group]
        own = [
            name
            for name in ("provider", DISPATCHER, *self._programs.worker_names, "api", CONSOLE)
            if self._folder.log(name).exists()
        ]
        await _together([*(supervisor.supervise() for supervisor in supervisors), self._follow_logs(own)])

    async def _follow_logs(self, names: Sequence[str]) -> None:
        tails = [LogTail(name=name, path=self._folder.log(name)) for name in names]
        try:
            for tail in tails:
                tail.skip()
            while True:
                await asyncio.sleep(_TAIL_S)
                for tail in tails:
                    for level, text in tail.read():
                        self._screen.quote(tail.name, level, text)
        finally:
            for tail in tails:
                tail.close()

    async def _report_slow_start(self) -> None:
        while True:
            await asyncio.sleep(_SLOW_S)
            missing = [supervisor.name for group in self._groups for supervisor in group if not supervisor.is_ready]
            self._screen.print_event(f"starting {', '.join(missing) or 'the schema'} ...")

    async def _stop_all(self) -> None:
        self._screen.print_event(
            "stopping: no new payments, those in progress are finished (another Ctrl-C shortens this)"
        )
        for group in reversed(self._groups):
            async with _task(self._report_slow_drain(group)):
                await _together(supervisor.stop(self._hurry) for supervisor in group)
        self._roster.clear()
        self._screen.print_event("stopped")

    async def _report_slow_drain(self, group: Sequence[Supervisor]) -> None:
        while True:
            await asyncio.sleep(_SLOW_S)
            self._screen.print_event(f"waiting for {', '.join(supervisor.name for supervisor in group)} ...")

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self._on_signal)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()


@contextlib.asynccontextmanager
async def _task(work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Run `work` in the background of the block; when the block ends, it is cancelled and has ended."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _together(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all; the first SetupError cancels the others, waits for them, and is raised."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for work in works:
                tasks.create_task(work)
    except BaseExceptionGroup as group:  # not except*: Python 3.11.2 wraps what is raised inside it in a group again
        known = group.subgroup(SetupError)
        if known is None:
            raise
        raise known.exceptions[0] from None
