"""`okane status`: what waits where, who works on it, and what became of the payments so far."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from okane.commands.context import Context
from okane.errors import StoreUnavailable
from okane.lanes import payments_stream
from okane.payment import Status
from okane.store import Overview
from streams import Inspector, StreamError, StreamStats, connect


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One look. A dependency that is away leaves its part None and says why in `trouble`."""

    at: datetime
    stats: StreamStats | None
    counts: Mapping[Status, int] | None
    oldest_due: timedelta | None
    dead: int | None
    trouble: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything, as `--json` prints it. Durations are in the unit their name ends on."""
        stats = self.stats
        return {
            "at": self.at.isoformat(),
            "lanes": None
            if stats is None
            else [
                {
                    "lane": lane.lane,
                    "length": lane.length,
                    "depth": lane.depth,
                    "pending": lane.pending,
                    "lag": lane.lag,
                    "oldest_ms": None if lane.oldest_ms is None else stats.now_ms - lane.oldest_ms,
                }
                for lane in stats.lanes
            ],
            "consumers": None
            if stats is None
            else [
                {"name": name, "pending": pending, "idle_ms": idle_ms} for name, pending, idle_ms in _consumers(stats)
            ],
            "delayed": None if stats is None else stats.delayed,
            "next_due_ms": None if stats is None or stats.next_due_ms is None else stats.next_due_ms - stats.now_ms,
            "dead": self.dead,
            "oldest_due_s": None if self.oldest_due is None else self.oldest_due.total_seconds(),
            "payments": None
            if self.counts is None
            else {status.value: self.counts.get(status, 0) for status in Status},
            "trouble": list(self.trouble),
        }


async def run(where: Context, *, watch: timedelta | None, as_json: bool) -> None:
    """Print one snapshot, or one every `watch` until Ctrl-C."""
    console = Console(highlight=False, markup=False, emoji=False)  # names of consumers may hold brackets
    async with contextlib.AsyncExitStack() as closing:
        redis = await closing.enter_async_context(connect(where.redis_url))
        inspector = Inspector(redis, payments_stream(where.settings.stream), group=where.settings.group)
        store = Overview(where.database_url)
        closing.push_async_callback(store.aclose)
        if watch is None or as_json:
            while True:
                shot = await look(inspector, store)
                if as_json:
                    print(json.dumps(shot.to_json()), flush=True)  # noqa: T201 - the command's answer
                else:
                    console.print(render(shot))
                if watch is None:
                    return
                await asyncio.sleep(watch.total_seconds())
        with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
            while True:
                live.update(render(await look(inspector, store)), refresh=True)
                await asyncio.sleep(watch.total_seconds())


async def look(inspector: Inspector, store: Overview) -> Snapshot:
    """Ask Redis and Postgres."""
    trouble: list[str] = []
    stats = counts = oldest_due = dead = None
    try:
        stats = await inspector.stats()
    except StreamError as error:
        trouble.append(f"Redis: {error}")
    try:
        counts, oldest_due, dead = await store.counts(), await store.oldest_due(), await store.dead()
    except StoreUnavailable as error:
        trouble.append(f"Postgres: {error}")
    return Snapshot(
        at=datetime.now(UTC), stats=stats, counts=counts, oldest_due=oldest_due, dead=dead, trouble=tuple(trouble)
    )


def render(shot: Snapshot) -> RenderableType:
    """A snapshot as text; readable at 80 columns."""
    parts: list[RenderableType] = [Text(line, style="bold red") for line in shot.trouble]
    if shot.stats is not None:
        parts += _queue(shot.stats)
    if shot.counts is not None:
        parts += _payments(shot.counts)
    if shot.oldest_due is not None:
        due = duration(shot.oldest_due) if shot.oldest_due else "-"
        parts.append(Text(f"oldest due {due}    dead letters {shot.dead:,}"))
    return Group(*parts)


def _queue(stats: StreamStats) -> list[RenderableType]:
    lanes = _table("lane", "waiting", "pending", "oldest", "lag")
    for lane in stats.lanes:
        age = "-" if lane.oldest_ms is None else duration(timedelta(milliseconds=stats.now_ms - lane.oldest_ms))
        lanes.add_row(
            lane.lane, f"{lane.depth:,}", f"{lane.pending:,}", age, "-" if lane.lag is None else f"{lane.lag:,}"
        )
    due = "" if stats.next_due_ms is None else f", next in {_until(stats.next_due_ms - stats.now_ms)}"
    line = Text(f"delayed {stats.delayed:,}{due}")
    consumers = _table("consumer", "pending", "idle")
    for name, pending, idle_ms in _consumers(stats):
        consumers.add_row(name, f"{pending:,}", duration(timedelta(milliseconds=idle_ms)))
    nobody = Text("no consumers: start a worker", style="yellow")
    return [lanes, line, Text(), consumers if stats.consumers else nobody, Text()]


def _payments(counts: Mapping[Status, int]) -> list[RenderableType]:
    if not counts:
        return [Text("no payments yet"), Text()]
    table = _table("status", "payments")
    for status in Status:
        if counts.get(status):
            table.add_row(status.value, f"{counts[status]:,}")
    return [table, Text()]


def _consumers(stats: StreamStats) -> list[tuple[str, int, int]]:
    """Each consumer once: what it holds on all lanes, and how long ago it last read any of them."""
    merged: dict[str, tuple[int, int]] = {}
    for each in stats.consumers:
        pending, idle_ms = merged.get(each.name, (0, each.idle_ms))
        merged[each.name] = (pending + each.pending, min(idle_ms, each.idle_ms))
    return [(name, *merged[name]) for name in sorted(merged)]


def duration(span: timedelta) -> str:
    """`0.2 s`, `45 s`, `3 min`, `2.5 h`, `4 d`."""
    seconds = span.total_seconds()
    for limit, unit, size in ((10, "s", 1), (120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.1f} {unit}" if limit == 10 or unit == "h" else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def _until(milliseconds: int) -> str:
    return "0.0 s" if milliseconds < 0 else duration(timedelta(milliseconds=milliseconds))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    return table
