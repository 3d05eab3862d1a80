"""`okane torture`: start a system, send payments under faults, heal it, and check the invariants over the journals.

Promise: the report is complete, also after Ctrl-C; no program that was started is left running.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

import psycopg
from rich.console import Console

from okane.errors import SetupError, StoreUnavailable
from okane.load.client import HttpClient
from okane.local.data_folder import DataFolder, lock_data_folder
from streams import StreamError
from torture import repairs
from torture.clients import CANARIES, TIMEOUT_S, Clients
from torture.faults import FAULTS
from torture.faults.listing import why_impossible
from torture.history.collect import collect, come_to_rest
from torture.history.watch import Watch, note_stalls
from torture.invariants.verdict import check
from torture.nemesis import Nemesis
from torture.options import TortureOptions
from torture.people import customers
from torture.people.people import People
from torture.report.logged_errors import logged_errors
from torture.report.progress import show_progress
from torture.report.rendering import render
from torture.report.report import TortureReport, build_report
from torture.schedule import schedule
from torture.subscribers import Subscribers
from torture.system import small_disk
from torture.system.cluster import Cluster
from torture.system.guardian import guarded, kill_family
from torture.system.shape import Shape
from torture.system.tally import Tally

PAUSE_S = 0.4  # between faults: about a kill a second
_ONE_SIGNAL_S = 0.2
NO_FAULTS = ("none",)
_FILES = 10_240
_KILLS_AHEAD = 10  # of the payments
GIVE_UP_S = 30.0  # after which clients of a healed system stop repeating


async def run_torture(options: TortureOptions, console: Console, *, stop: asyncio.Event | None = None) -> TortureReport:
    """Run it, show its progress, print the report (or, with `options.json`, one JSON object) to `console`.

    Ctrl-C, or setting `stop`, ends the torture early; a second Ctrl-C ends it at once. Raises SetupError when it cannot
    run at all.
    """
    stop = asyncio.Event() if stop is None else stop
    progress_console = Console(stderr=True) if options.json else console
    if unknown := set(_chosen(options)) - set(FAULTS):
        raise SetupError(f"there is no fault {', '.join(sorted(unknown))}: see --list-faults")
    _check_targets(options)
    _allow_many_files()
    path = options.data or Path(tempfile.mkdtemp(prefix="okane-torture-"))
    with (
        lock_data_folder(path, report=progress_console.print) as folder,
        _interrupts_set(stop, folder),
        guarded(folder),
    ):
        report = await _Run(options, folder, progress_console, stop).run()
    if report.folder is None:
        await asyncio.to_thread(shutil.rmtree, path)
    else:
        (path / "report.json").write_text(json.dumps(report.to_json(), indent=1))
    # `out` neither wraps nor interprets: the text is the same on a terminal, in a pipe and in a log.
    console.out(json.dumps(report.to_json()) if options.json else render(report), highlight=False)
    return report


def _chosen(options: TortureOptions) -> Sequence[str]:
    """Return the names of the faults to make."""
    if options.faults == NO_FAULTS:
        return ()
    return options.faults or tuple(FAULTS)


def _check_targets(options: TortureOptions) -> None:
    """Raise SetupError for a fault that was asked for by name, and strikes nothing that these options start."""
    shape = Shape.of(options)
    for name in _chosen(options) if options.faults else ():
        if not FAULTS[name].targets(shape):
            needs = FAULTS[name].needs
            raise SetupError(f"the fault {name} needs {needs}" if needs else f"the fault {name} strikes nothing here")


class _Run:
    """One run, from the first start to the report."""

    def __init__(
        self,
        options: TortureOptions,
        folder: DataFolder,
        console: Console,
        stop: asyncio.Event,
    ) -> None:
        self._options = options
        self._folder = folder
        self._console = console
        self._stop = stop
        self._tally = Tally()
        self._shape = Shape.of(options)
        self._cluster = Cluster(options=options, shape=self._shape, folder=folder, tally=self._tally)
        self._phase = "starting"
        self._started_s = time.monotonic()
        self._clients: Clients | None = None
        self._watch: Watch | None = None
        self._subscribers: Subscribers | None = None

    async def run(self) -> TortureReport:
        names = _chosen(self._options)
        impossible = await asyncio.to_thread(why_impossible, names)
        small_disks = await asyncio.to_thread(small_disk.why_impossible) is None
        async with (
            show_progress(self._console, self._line),
            HttpClient(timeout_s=TIMEOUT_S) as http,
            self._cluster.running(small_disks=small_disks),
        ):
            self._started_s = time.monotonic()
            self._clients = clients = Clients(
                urls=self._cluster.api_urls,
                http=http,
                seed=self._options.seed,
                rate=self._options.rate,
                started_s=self._started_s,
            )
            if self._shape.dispatchers:
                self._subscribers = Subscribers(self._cluster, seed=self._options.seed)
            people = People(
                self._cluster, http=http, seed=self._options.seed, started_s=self._started_s, patient=not names
            )
            self._watch = watch = Watch(self._cluster, http)
            async with _watching(watch, self._tally):
                await self._torture(clients, people, names, impossible)
                seconds = time.monotonic() - self._started_s
                waited_s = await self._rest()
                if not self._stop.is_set():
                    waited_s += await self._measure(clients, names)
            self._phase = "reading the journals"
            try:
                history = await collect(
                    self._cluster,
                    requests=[*clients.journal, *people.requests],
                    operation_requests=clients.merchants.journal,
                    decisions=people.decisions,
                    methods=people.methods,
                    routes=people.routes,
                    canaries=(*CANARIES, customers.CANARY),
                    watch=watch,
                    http=http,
                    started_s=self._started_s,
                    waited_s=waited_s,
                    endpoints=() if self._subscribers is None else self._subscribers.endpoints,
                    dead_path=self._dead_path,
                )
            except (OSError, StoreUnavailable, StreamError, psycopg.Error) as error:
                raise SetupError(
                    f"the journals cannot be read: {error}. What there is, is in {self._folder.path}"
                ) from error
            verdict = await asyncio.to_thread(check, history)
            keep = self._options.data is not None or not verdict.holds
            if keep:
                await self._cluster.rescue()
            return build_report(
                options=self._options,
                verdict=verdict,
                history=history,
                tally=self._tally,
                watch=watch,
                acknowledged=clients.acknowledged,
                seconds=seconds,
                interrupted=self._stop.is_set(),
                impossible=impossible,
                failpoints=self._shape.failpoints,
                errors=await asyncio.to_thread(logged_errors, self._folder.logs),
                folder=self._folder.path if keep else None,
            )

    async def _torture(
        self, clients: Clients, people: People, names: Sequence[str], impossible: Mapping[str, str]
    ) -> None:
        """Run load and faults until all lengths are reached, then wait for the last answers."""
        self._phase = "torturing"
        cards = [FAULTS[name].card(self._shape) for name in names]
        steps = schedule(cards, seed=self._options.seed, pause_s=PAUSE_S)
        nemesis = Nemesis(cluster=self._cluster, steps=steps, impossible=impossible)
        async with asyncio.TaskGroup() as tasks:
            paying = tasks.create_task(clients.run(self._enough))
            if self._subscribers is not None:
                tasks.create_task(self._subscribers.run(self._enough))
            tasks.create_task(people.run(self._enough))
            await nemesis.run(self._enough, may_strike=self._keeps_pace)
            self._phase = "healing"
            await self._cluster.calm()
            await _patiently(paying, clients)

    async def _measure(self, clients: Clients, names: Sequence[str]) -> float:
        """Measure single repairs, as far as the chosen faults allow; return the seconds until the system was at rest."""
        workers, redis = (fault in names for fault in (repairs.WORKER_FAULT, repairs.REDIS_FAULT))
        if not (workers or redis):
            return 0.0
        self._phase = "measuring repairs"
        await repairs.measure_repairs(
            self._cluster, clients, workers=workers, redis=redis, stop=self._stop, dead_path=self._dead_path
        )
        return await self._rest()

    async def _rest(self) -> float:
        """Wait until the system is at rest; return the seconds that it took."""
        self._phase = "coming to rest"
        tend = None if self._subscribers is None else self._subscribers.tend
        return await come_to_rest(self._cluster, within_s=self._options.rest_s, tend=tend)

    @property
    def _dead_path(self) -> str | None:
        return None if self._subscribers is None else self._subscribers.dead_path

    def _enough(self) -> bool:
        """Return True when every requested length is reached, or a stop was requested."""
        assert self._clients is not None
        elapsed_s = time.monotonic() - self._started_s
        return self._stop.is_set() or (
            elapsed_s >= self._options.minutes * 60
            and self._tally.kill_count >= self._options.kills
            and self._clients.acknowledged >= self._options.payments
        )

    def _keeps_pace(self) -> bool:
        """Return False while there were more kills than their share for the payments so far.

        Else a machine that is too busy for the payments spends its time on starting what was killed.
        """
        assert self._clients is not None
        options = self._options
        if not (options.kills and options.payments):
            return True
        share = min(1.0, self._clients.acknowledged / options.payments)
        return self._tally.kill_count < options.kills * share + _KILLS_AHEAD

    def _line(self) -> str:
        """Return the progress in one line."""
        if self._clients is None or self._watch is None:
            return self._phase
        elapsed_s = time.monotonic() - self._started_s
        now = ", ".join(self._tally.now.values())
        return (
            f"{elapsed_s:5.0f} s {self._phase}: {self._clients.sent:,} sent, {self._clients.acknowledged:,} acknowledged, "
            f"{self._watch.charged:,} charged; {self._tally.kill_count:,} kills{now and f'; now: {now}'}"
        )


async def _patiently(paying: asyncio.Task[None], clients: Clients) -> None:
    """Let the clients repeat for a while, then make them give up."""
    done, _ = await asyncio.wait([paying], timeout=GIVE_UP_S)
    if not done:
        clients.give_up()
    await paying


def _allow_many_files() -> None:
    """Raise the limit of open files as far as the system allows: each connection takes four descriptors here."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS reports "unlimited" and then refuses more than this.
    files = _FILES if most == resource.RLIM_INFINITY else min(most, _FILES)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))


@contextlib.asynccontextmanager
async def _watching(watch: Watch, tally: Tally) -> AsyncIterator[None]:
    """Run `watch` while the block runs, and once more at its end; note stalls of the machine."""
    done = asyncio.Event()
    watching = asyncio.gather(watch.run(done), note_stalls(tally, done))
    try:
        yield
    finally:
        done.set()
        await watching


@contextlib.contextmanager
def _interrupts_set(stop: asyncio.Event, folder: DataFolder) -> Iterator[None]:
    """Set `stop` at the first Ctrl-C or SIGTERM; the second ends everything at once."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    first_s: float | None = None

    def on_signal(number: signal.Signals) -> None:
        nonlocal first_s
        first_s = first_s or time.monotonic()
        # One signal may arrive twice: for the process, and for its group.
        if time.monotonic() - first_s > _ONE_SIGNAL_S:
            for record in folder.roster.load():
                kill_family(record)
            os._exit(128 + number)
        stop.set()

    try:
        for number in numbers:
            loop.add_signal_handler(number, on_signal, number)
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
