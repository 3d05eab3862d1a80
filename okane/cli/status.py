"""`okane status`: the lanes of payments and operations, the consumers, and the number of payments in each status."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from okane.cli.context import Context, open_context
from okane.cli.options import Data, Interval, Json
from okane.cli.output import CONSOLE, print_json
from okane.cli.running import run
from okane.duration_text import format_duration
from okane.errors import StoreUnavailable
from okane.lanes import operations_stream, payments_stream
from okane.monitoring import operation_summary
from okane.monitoring.operation_summary import OperationCounts
from okane.monitoring.webhook_summary import in_trouble, line, to_json
from okane.payment import Status
from okane.store import Overview
from okane.store.webhook_overview import WebhookOverview
from streams import Inspector, StreamError, StreamStats, connect

app = typer.Typer(add_completion=False)


@app.command()
def status(
    *,
    data: Data = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="refresh until Ctrl-C")] = False,
    interval: Interval = 2.0,
    json_: Json = False,
) -> None:
    run(_show(open_context(data), watch=timedelta(seconds=interval) if watch else None, as_json=json_))


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state at one moment. The fields of a server that is away are None; `trouble` has the reason."""

    at: datetime
    stats: StreamStats | None
    counts: Mapping[Status, int] | None
    oldest_due: timedelta | None
    dead: int | None
    webhooks: WebhookOverview | None
    operation_stats: StreamStats | None
    operations: OperationCounts | None
    trouble: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything, as `--json` prints it. Names of durations end in their unit."""
        stats = self.stats
        return {
            "at": self.at.isoformat(),
            **_stream_json(stats),
            "dead": self.dead,
            "oldest_due_s": None if self.oldest_due is None else self.oldest_due.total_seconds(),
            "payments": None
            if self.counts is None
            else {status.value: self.counts.get(status, 0) for status in Status},
            "operations": {
                **_stream_json(self.operation_stats),
                **operation_summary.to_json(self.operations),
            },
            "webhooks": to_json(self.webhooks) if self.webhooks is not None and self.webhooks.used else None,
            "trouble": list(self.trouble),
        }


async def _show(context: Context, *, watch: timedelta | None, as_json: bool) -> None:
    """Print one snapshot, or one every `watch` until Ctrl-C."""
    async with contextlib.AsyncExitStack() as closing:
        redis = await closing.enter_async_context(connect(context.redis_url))
        settings = context.settings
        inspector = Inspector(redis, payments_stream(settings.stream), group=settings.group)
        operations = Inspector(redis, operations_stream(settings.operations_stream_name), group=settings.group)
        overview = Overview(context.database_url)
        closing.push_async_callback(overview.aclose)
        live = None
        if watch is not None and not as_json:
            live = closing.enter_context(Live(console=CONSOLE, screen=CONSOLE.is_terminal, auto_refresh=False))
        while True:
            snapshot = await take_snapshot(inspector, operations, overview)
            if as_json:
                print_json(snapshot.to_json())
            elif live is not None:
                live.update(render(snapshot), refresh=True)
            else:
                CONSOLE.print(render(snapshot))
            if watch is None:
                return
            await asyncio.sleep(watch.total_seconds())


async def take_snapshot(inspector: Inspector, operations: Inspector, overview: Overview) -> Snapshot:
    """Read Redis and Postgres; `operations` is the inspector of their stream."""
    trouble: list[str] = []
    stats = operation_stats = counts = operation_counts = oldest_due = dead = webhooks = None
    try:
        stats = await inspector.stats()
        operation_stats = await operations.stats()
    except StreamError as error:
        trouble.append(f"Redis: {error}")
    try:
        counts, oldest_due, dead = await overview.count_all(), await overview.oldest_due(), await overview.count_dead()
        webhooks = await overview.webhooks()
        operation_counts = await operation_summary.read_counts(overview)
    except StoreUnavailable as error:
        trouble.append(f"Postgres: {error}")
    return Snapshot(
        at=datetime.now(UTC),
        stats=stats,
        counts=counts,
        oldest_due=oldest_due,
        dead=dead,
        webhooks=webhooks,
        operation_stats=operation_stats,
        operations=operation_counts,
        trouble=tuple(trouble),
    )


def render(snapshot: Snapshot) -> RenderableType:
    """Return a snapshot as text for 80 columns."""
    parts: list[RenderableType] = [Text(line, style="bold red") for line in snapshot.trouble]
    if snapshot.stats is not None:
        parts += _queue([one for one in (snapshot.stats, snapshot.operation_stats) if one is not None])
    if snapshot.counts is not None:
        parts += _payments(snapshot.counts)
    if snapshot.oldest_due is not None:
        due = format_duration(snapshot.oldest_due) if snapshot.oldest_due else "-"
        parts.append(Text(f"oldest due {due}    dead letters {snapshot.dead:,}"))
    if snapshot.operations is not None:
        stats = snapshot.operation_stats
        text = operation_summary.line(snapshot.operations, delayed=None if stats is None else stats.delayed)
        parts.append(Text(text, style="yellow" if snapshot.operations.in_trouble else ""))
    if snapshot.webhooks is not None and snapshot.webhooks.used:
        style = "yellow" if in_trouble(snapshot.webhooks) else ""
        parts.append(Text(line(snapshot.webhooks), style=style))
    return Group(*parts)


def _queue(streams: Sequence[StreamStats]) -> list[RenderableType]:
    """Return the lanes of all streams, the payments' first, and their consumers, which read all of them."""
    lanes = _table("lane", "waiting", "pending", "oldest", "lag")
    for stats in streams:
        for lane in stats.lanes:
            age_ms = None if lane.oldest_ms is None else stats.now_ms - lane.oldest_ms
            age = "-" if age_ms is None else format_duration(timedelta(milliseconds=age_ms))
            lag = "-" if lane.lag is None else f"{lane.lag:,}"
            lanes.add_row(lane.lane, f"{lane.depth:,}", f"{lane.pending:,}", age, lag)
    payments = streams[0]
    due = "" if payments.next_due_ms is None else f", next in {_until(payments.next_due_ms - payments.now_ms)}"
    line = Text(f"delayed {payments.delayed:,}{due}")
    consumers, found = _table("consumer", "pending", "idle"), _consumers(*streams)
    for name, pending, idle_ms in found:
        consumers.add_row(name, f"{pending:,}", format_duration(timedelta(milliseconds=idle_ms)))
    none = Text("no consumers: start a worker", style="yellow")
    return [lanes, line, Text(), consumers if found else none, Text()]


def _payments(counts: Mapping[Status, int]) -> list[RenderableType]:
    if not counts:
        return [Text("no payments yet"), Text()]
    table = _table("status", "payments")
    for status in Status:
        if counts.get(status):
            table.add_row(status.value, f"{counts[status]:,}")
    return [table, Text()]


def _stream_json(stats: StreamStats | None) -> dict[str, Any]:
    if stats is None:
        return dict.fromkeys(("lanes", "consumers", "delayed", "next_due_ms"))
    return {
        "lanes": [
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
        "consumers": [
            {"name": name, "pending": pending, "idle_ms": idle_ms} for name, pending, idle_ms in _consumers(stats)
        ],
        "delayed": stats.delayed,
        "next_due_ms": None if stats.next_due_ms is None else stats.next_due_ms - stats.now_ms,
    }


def _consumers(*streams: StreamStats) -> list[tuple[str, int, int]]:
    """Return name, pending entries of all lanes, and time since the last read of any lane, for each consumer."""
    merged: dict[str, tuple[int, int]] = {}
    for each in (one for stats in streams for one in stats.consumers):
        pending, idle_ms = merged.get(each.name, (0, each.idle_ms))
        merged[each.name] = (pending + each.pending, min(idle_ms, each.idle_ms))
    return [(name, *merged[name]) for name in sorted(merged)]


def _until(milliseconds: int) -> str:
    return "0.0 s" if milliseconds < 0 else format_duration(timedelta(milliseconds=milliseconds))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    return table
