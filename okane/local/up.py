"""`okane up`: everything on one machine, under one supervisor, until Ctrl-C.

Starts the servers, then the schema, then our processes; keeps them running; stops them along the way of a payment:
first nothing new comes in, then what is in hand is finished, then the servers go.
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
from okane.local.console import LogTail, Screen, summary
from okane.local.data_folder import DataFolder, default_path, take
from okane.local.first_key import first_key
from okane.local.keeper import Keeper
from okane.local.options import UpOptions
from okane.local.plan import Plan
from okane.local.server import Server
from okane.store.schema import migrate

T = TypeVar("T")

_TAIL_S = 0.25
_SLOW_S = 2.0


async def up(settings: Settings, options: UpOptions, screen: Screen | None = None) -> int:
    """Run everything until SIGINT, SIGTERM or SIGHUP; a second signal hurries. Answers the exit code.

    What `settings` names (`database_url`, `redis`, `provider_base_url`) is used instead of an embedded part.
    """
    screen = screen or Screen()
    try:
        with take(options.data or default_path(), report=screen.say) as folder:
            plan = Plan(settings=settings, options=options, folder=folder, report=screen.say)
            return await _Run(settings=settings, plan=plan, folder=folder, screen=screen).run()
    except SetupError as error:
        screen.complain(str(error))
        return 1


class _Run:
    """One run of `up`, from the first start to the last stop."""

    def __init__(self, *, settings: Settings, plan: Plan, folder: DataFolder, screen: Screen) -> None:
        self._settings = settings
        self._plan = plan
        self._folder = folder
        self._screen = screen
        self._roster = folder.roster
        self._stop = asyncio.Event()
        self._hurry = threading.Event()
        # In the order of starting. Stopping goes backwards, one list at a time.
        self._kept: list[list[Keeper]] = []
        lease_s = settings.lease.total_seconds()
        self._consequences = {
            "worker": f"; what it held is taken over after the lease ({lease_s:g} s)",
            "postgres": "; what was answered is on disk, the API answers 503 meanwhile",
            "redis": "; payments are accepted meanwhile, the sweep wakes them up",
        }

    async def run(self) -> int:
        """Answers the exit code: 1 when something cannot start, or dies again and again, which it reports."""
        with self._signals():
            try:
                await self._until_stopped()
            except SetupError as error:
                self._screen.complain(str(error))  # now, not after the drain
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
            async with _task(self._keep()) as keeping:
                await asyncio.wait([keeping, stopped], return_when=asyncio.FIRST_COMPLETED)
                if keeping.done():
                    keeping.result()

    async def _start(self) -> None:
        started_at = time.monotonic()
        plan = self._plan
        with self._screen.console.status("starting"):
            async with _task(self._tell_what_is_slow()):
                await self._start_together([plan.postgres], [plan.redis])
                where = plan.endpoints()
                await migrate(where.database_url, report=self._screen.say)
                where = replace(where, api_key=await self._first_key(where.database_url))
                # The provider too: it takes as long to import as the others, and whoever calls too early retries.
                await self._start_together([plan.provider], plan.workers(), [plan.api()])
        self._folder.publish(where)
        pids = {keeper.name: keeper.pid for group in self._kept for keeper in group}
        title = f"okane is up after {time.monotonic() - started_at:.1f} s. Ctrl-C drains and stops it."
        folder = self._folder
        rows, command = summary(where, data=folder.path, logs=folder.logs, pids=pids, kept_key=folder.api_key)
        self._screen.block(title, rows, command)

    async def _start_together(self, *groups: Sequence[Server | None]) -> None:
        """Start all of them side by side; each group stops by itself later."""
        new = [[self._keeper(server) for server in group if server is not None] for group in groups]
        self._kept.extend(new)
        await _together(keeper.start() for group in new for keeper in group)

    async def _first_key(self, database_url: str) -> str | None:
        if self._settings.auth == "none":
            return None
        return await first_key(database_url, mode=self._settings.mode, kept_in=self._folder.api_key)

    def _keeper(self, server: Server) -> Keeper:
        kind = server.name.partition("-")[0]
        consequence = self._consequences.get(kind, "")
        return Keeper(server=server, roster=self._roster, report=self._screen.say, consequence=consequence)

    async def _keep(self) -> None:
        keepers = [keeper for group in self._kept for keeper in group]
        own = [name for name in ("provider", *self._plan.worker_names, "api") if self._folder.log(name).exists()]
        await _together([*(keeper.keep() for keeper in keepers), self._follow_logs(own)])

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

    async def _tell_what_is_slow(self) -> None:
        while True:
            await asyncio.sleep(_SLOW_S)
            missing = [keeper.name for group in self._kept for keeper in group if not keeper.is_ready]
            self._screen.say(f"starting {', '.join(missing) or 'the schema'} ...")

    async def _stop_all(self) -> None:
        self._screen.say("stopping: nothing new is taken, what is in hand is finished (another Ctrl-C hurries)")
        for group in reversed(self._kept):
            async with _task(self._tell_what_drains(group)):
                await _together(keeper.stop(self._hurry) for keeper in group)
        self._roster.clear()
        self._screen.say("stopped")

    async def _tell_what_drains(self, group: Sequence[Keeper]) -> None:
        while True:
            await asyncio.sleep(_SLOW_S)
            self._screen.say(f"waiting for {', '.join(keeper.name for keeper in group)} ...")

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
    """`work` in the background of the block; it is cancelled, and has ended, when the block ends."""
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
