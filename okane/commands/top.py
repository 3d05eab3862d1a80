"""`okane top`: rates, latencies, lanes and workers, live, for machines without Grafana. Fits in 80 by 24 characters.

Cheap enough to leave running: it asks each process for its own metrics, Redis once, and Postgres for what waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import aiohttp
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from okane.commands.context import Context
from okane.commands.scrape import Between, Samples, both, scrape, value
from okane.commands.status import duration
from okane.errors import StoreUnavailable
from okane.lanes import payments_stream
from okane.payment import Status
from okane.redis.presence import Presence, PresentProcess
from okane.store import Overview
from streams import Inspector, StreamError, StreamStats, connect

ONCE = timedelta(seconds=1)  # between the two looks that one picture takes
NAME_WIDTH = 20  # of a process, in characters
_ABOVE_PROCESSES = 13  # lines, with the one that says how many more there are
# In characters, as much as most values take: what is beside them does not move with every picture.
_HEAD_WIDTHS = (17, 28, 20)
_WIDTHS = {"state": 6, "oldest": 6, "idle": 6, "in": 8, "out": 8, "CPU": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What there was at one moment. What could not be asked is None, and `trouble` says why."""

    at_s: float
    processes: Sequence[PresentProcess]
    samples: Mapping[str, Samples | None]  # by address
    stats: StreamStats | None
    oldest_due: timedelta | None
    dead: int | None
    waiting: Mapping[Status, int] | None
    trouble: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One lane: what waits, and what went through it."""

    lane: str
    waiting: int | None
    pending: int | None
    oldest_s: float | None
    published_per_s: float
    settled_per_s: float
    wait_p99_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process, or a consumer that no process stands behind any more."""

    name: str
    role: str
    state: str  # up, silent, gone
    in_hand: int | None
    pending: int | None
    idle_s: float | None
    settled_per_s: float | None
    cpu: float | None  # cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What is shown: the state now, and what happened since the look before."""

    at: datetime
    seconds: float
    accepted_per_s: float
    settled_per_s: float
    charged_share: float | None
    accept_p50_s: float | None
    accept_p99_s: float | None
    settle_p50_s: float | None
    settle_p99_s: float | None
    call_p99_s: float | None
    retries_per_s: float
    take_overs_per_s: float
    repairs_per_s: float
    without_redis_per_s: float
    delayed: int | None
    dead: int | None
    unknown: int | None
    needs_review: int | None
    oldest_due_s: float | None
    lanes: Sequence[Lane]
    processes: Sequence[Process]
    trouble: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """Everything, as `--json` prints it."""
        return {**asdict(self), "at": self.at.isoformat()}


async def run(where: Context, *, interval: timedelta, once: bool, as_json: bool) -> None:
    """Show a picture every `interval` until Ctrl-C, or one."""
    console = Console(highlight=False, markup=False, emoji=False)  # names of consumers may hold brackets
    async with contextlib.AsyncExitStack() as closing:
        looker = await closing.enter_async_context(_looking(where))
        live = None
        if console.is_terminal and not once and not as_json:
            first = Text("looking at every process twice, to have rates …")
            live = closing.enter_context(Live(first, console=console, screen=True, auto_refresh=False))
            live.refresh()
        before = await looker.look(())
        while True:
            await asyncio.sleep((ONCE if once else interval).total_seconds())
            after = await looker.look(before.processes)
            picture = compare(before, after)
            if as_json:
                print(json.dumps(picture.to_json()), flush=True)  # noqa: T201 - the command's answer
            elif live is not None:
                live.update(render(picture, height=console.height), refresh=True)
            else:
                console.print(render(picture, height=None))
            if once:
                return
            before = after


class _Looker:
    """Looks at everything at the same time."""

    def __init__(
        self, *, inspector: Inspector, presence: Presence, overview: Overview, http: aiohttp.ClientSession
    ) -> None:
        self._inspector = inspector
        self._presence = presence
        self._overview = overview
        self._http = http

    async def look(self, known: Sequence[PresentProcess]) -> Look:
        """One look. While Redis is away, at the processes that were `known` before."""
        trouble: list[str] = []
        stats, processes = None, known
        try:
            stats, processes = await asyncio.gather(self._inspector.stats(), self._presence.processes())
        except StreamError as error:
            trouble.append(f"Redis: {error}")
        (oldest_due, dead, waiting), answers = await asyncio.gather(
            self._postgres(trouble), asyncio.gather(*(scrape(self._http, one.address) for one in processes))
        )
        return Look(
            at_s=time.monotonic(),
            processes=processes,
            samples={one.address: answer for one, answer in zip(processes, answers, strict=True)},
            stats=stats,
            oldest_due=oldest_due,
            dead=dead,
            waiting=waiting,
            trouble=tuple(trouble),
        )

    async def _postgres(self, trouble: list[str]) -> tuple[timedelta | None, int | None, Mapping[Status, int] | None]:
        try:
            return await self._overview.oldest_due(), await self._overview.dead(), await self._overview.off_path()
        except StoreUnavailable as error:
            trouble.append(f"Postgres: {error}")
            return None, None, None


@contextlib.asynccontextmanager
async def _looking(where: Context) -> AsyncIterator[_Looker]:
    stream = payments_stream(where.settings.stream)
    overview = Overview(where.database_url, timeout=timedelta(seconds=2))
    async with connect(where.redis_url, timeout=timedelta(seconds=2)) as redis, aiohttp.ClientSession() as http:
        try:
            yield _Looker(
                inspector=Inspector(redis, stream, group=where.settings.group),
                presence=Presence(redis, stream),
                overview=overview,
                http=http,
            )
        finally:
            await overview.aclose()


def compare(before: Look, after: Look) -> Picture:
    """The state after, and what happened since before."""
    seconds = after.at_s - before.at_s
    between = both(before.samples, after.samples, seconds=seconds)
    stats, waiting = after.stats, after.waiting
    charged = between.rate("okane_payments_settled_total", status="success")
    settled = charged + between.rate("okane_payments_settled_total", status="failed_final")
    return Picture(
        at=datetime.now(UTC),
        seconds=seconds,
        accepted_per_s=between.rate("okane_payments_accepted_total", result="created"),
        settled_per_s=settled,
        charged_share=charged / settled if settled else None,
        accept_p50_s=between.quantile(0.5, "okane_http_request_seconds", method="POST"),
        accept_p99_s=between.quantile(0.99, "okane_http_request_seconds", method="POST"),
        settle_p50_s=between.quantile(0.5, "okane_payment_settle_seconds"),
        settle_p99_s=between.quantile(0.99, "okane_payment_settle_seconds"),
        call_p99_s=between.quantile(0.99, "okane_provider_call_seconds"),
        retries_per_s=between.rate("okane_payment_retries_total"),
        take_overs_per_s=between.rate("okane_messages_reclaimed_total"),
        repairs_per_s=between.rate("okane_sweep_repairs_total"),
        without_redis_per_s=between.rate("okane_direct_runs_total"),
        delayed=None if stats is None else stats.delayed,
        dead=after.dead,
        unknown=None if waiting is None else waiting.get(Status.UNKNOWN, 0),
        needs_review=None if waiting is None else waiting.get(Status.NEEDS_REVIEW, 0),
        oldest_due_s=None if after.oldest_due is None else after.oldest_due.total_seconds(),
        lanes=_lanes(stats, between),
        processes=_processes(before, after),
        trouble=after.trouble,
    )


def _lanes(stats: StreamStats | None, between: Between) -> list[Lane]:
    found = {} if stats is None else {lane.lane: lane for lane in stats.lanes}
    now_ms = 0 if stats is None else stats.now_ms
    lanes = []
    for name in payments_stream("any").lane_names:
        lane = found.get(name)
        lanes.append(
            Lane(
                lane=name,
                waiting=None if lane is None else lane.depth,
                pending=None if lane is None else lane.pending,
                oldest_s=None if lane is None or lane.oldest_ms is None else max(0, now_ms - lane.oldest_ms) / 1000,
                published_per_s=between.rate("okane_messages_published_total", lane=name),
                settled_per_s=between.rate("okane_messages_settled_total", lane=name),
                wait_p99_s=between.quantile(0.99, "okane_message_wait_seconds", lane=name),
            )
        )
    return lanes


def _processes(before: Look, after: Look) -> list[Process]:
    """Those that are in trouble first, then those that do most."""
    held: dict[str, tuple[int, int]] = {}
    for each in () if after.stats is None else after.stats.consumers:
        pending, idle_ms = held.get(each.name, (0, each.idle_ms))
        held[each.name] = (pending + each.pending, min(idle_ms, each.idle_ms))
    found = [_process(one, before, after, held) for one in after.processes]
    behind = {one.name for one in after.processes}
    found += [
        Process(
            name=name,
            role="worker",
            state="gone",
            in_hand=None,
            pending=pending,
            idle_s=idle_ms / 1000,
            settled_per_s=None,
            cpu=None,
        )
        for name, (pending, idle_ms) in held.items()
        if name not in behind and pending
    ]
    return sorted(found, key=lambda one: (one.state == "up", one.role, -(one.cpu or 0), one.name))


def _process(one: PresentProcess, before: Look, after: Look, held: Mapping[str, tuple[int, int]]) -> Process:
    pending, idle_ms = held.get(one.name, (None, None)) if one.role == "worker" else (None, None)
    samples, was = after.samples[one.address], before.samples.get(one.address)
    rates = None
    if samples is not None and was is not None:
        rates = Between(before=[was], after=[samples], seconds=after.at_s - before.at_s)
    return Process(
        name=one.name,
        role=one.role,
        state="silent" if samples is None else "up",
        in_hand=None if samples is None or one.role != "worker" else int(value(samples, "okane_in_flight_messages")),
        pending=pending,
        idle_s=None if idle_ms is None else idle_ms / 1000,
        settled_per_s=None if rates is None or one.role != "worker" else rates.rate("okane_messages_settled_total"),
        cpu=None if rates is None else rates.rate("process_cpu_seconds_total"),
    )


def render(picture: Picture, *, height: int | None) -> RenderableType:
    """A picture as text; readable at 80 columns, and cut to `height` lines if that is given."""
    return Group(
        *(Text(line, style="bold red", overflow="ellipsis", no_wrap=True) for line in picture.trouble),
        _head(picture),
        Text(),
        _lanes_table(picture.lanes),
        Text(),
        *_processes_table(picture.processes, room=None if height is None else _room(height, picture)),
    )


def _room(height: int, picture: Picture) -> int:
    return max(1, height - _ABOVE_PROCESSES - len(picture.trouble))


def _head(picture: Picture) -> RenderableType:
    grid = Table.grid(padding=(0, 3, 0, 0))
    for width in _HEAD_WIDTHS:
        grid.add_column(min_width=width, no_wrap=True)
    charged = "-" if picture.charged_share is None else f"{picture.charged_share:.0%}"
    for row in (
        (
            f"accepted {_rate(picture.accepted_per_s)}",
            f"accept p50 {_seconds(picture.accept_p50_s)} p99 {_seconds(picture.accept_p99_s)}",
            f"oldest due {_seconds(picture.oldest_due_s)}",
        ),
        (
            f"settled {_rate(picture.settled_per_s)}",
            f"settle p50 {_seconds(picture.settle_p50_s)} p99 {_seconds(picture.settle_p99_s)}",
            f"delayed {_count(picture.delayed)}",
        ),
        (f"charged {charged}", f"provider p99 {_seconds(picture.call_p99_s)}", f"dead letters {_count(picture.dead)}"),
        (
            f"retries {_rate(picture.retries_per_s)}",
            f"take-overs {_rate(picture.take_overs_per_s)}",
            f"unknown {_count(picture.unknown)}",
        ),
        (
            f"repairs {_rate(picture.repairs_per_s)}",
            f"without Redis {_rate(picture.without_redis_per_s)}",
            f"needs review {_count(picture.needs_review)}",
        ),
    ):
        grid.add_row(*row)
    return grid


def _lanes_table(lanes: Sequence[Lane]) -> Table:
    table = _table("lane", "waiting", "pending", "oldest", "in", "out", "waited p99")
    for lane in lanes:
        table.add_row(
            lane.lane,
            _count(lane.waiting),
            _count(lane.pending),
            _seconds(lane.oldest_s),
            _rate(lane.published_per_s),
            _rate(lane.settled_per_s),
            _seconds(lane.wait_p99_s),
        )
    return table


def _processes_table(processes: Sequence[Process], *, room: int | None) -> list[RenderableType]:
    if not processes:
        return [Text("no process is there: start an API and a worker", style="yellow")]
    shown = processes if room is None or len(processes) <= room else processes[: max(1, room - 1)]
    table = _table("process", "role", "state", "in hand", "pending", "idle", "out", "CPU")
    # By name: those that do about as much as each other would change places with every picture.
    for one in sorted(shown, key=lambda one: (one.state == "up", one.role, len(one.name), one.name)):
        table.add_row(
            _short(one.name),
            one.role,
            Text(one.state, style="" if one.state == "up" else "bold red"),
            _count(one.in_hand),
            _count(one.pending),
            _seconds(one.idle_s),
            "-" if one.settled_per_s is None else _rate(one.settled_per_s),
            "-" if one.cpu is None else f"{one.cpu:.0%}",
        )
    left = len(processes) - len(shown)
    return [table, Text(f"and {left} more")] if left else [table]


def _short(name: str) -> str:
    """Its ends: the machine is told by the one, the process by the other."""
    return name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH // 2]}…{name[-(NAME_WIDTH - 1) // 2 :]}"


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}/s" if per_s >= 100 or per_s == 0 else f"{per_s:.1f}/s"


def _count(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else duration(timedelta(seconds=seconds))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        justify: Literal["left", "right"] = "left" if column in {"lane", "process", "role", "state"} else "right"
        table.add_column(column, justify=justify, no_wrap=True, min_width=_WIDTHS.get(column))
    return table
