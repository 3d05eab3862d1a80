"""Draw a picture of `okane top` in 80 by 24 characters."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from okane.duration_text import format_duration
from okane.monitoring.picture import LaneRow, OperationsRow, Picture, ProcessRow, ProviderRow, WebhookRow

NAME_WIDTH = 20  # of a process, in characters
_ABOVE_PROCESSES = 14  # lines, with the one that says how many more there are
# In characters, as wide as most values need: the columns beside them keep their places from picture to picture.
_HEAD_WIDTHS = (17, 28, 20)
_WIDTHS = {"state": 6, "oldest": 6, "idle": 6, "in": 8, "out": 8, "CPU": 4}


def render(picture: Picture, *, height: int | None) -> RenderableType:
    """Return a picture as text for 80 columns, cut to `height` lines unless that is None."""
    return Group(
        *(Text(line, style="bold red", overflow="ellipsis", no_wrap=True) for line in picture.trouble),
        *(_provider(one) for one in picture.providers),
        _head(picture),
        *_operations(picture.operations),
        *_webhooks(picture.webhooks),
        Text(),
        _lanes_table([*picture.lanes, *(picture.operations.lanes if picture.operations.is_used else ())]),
        Text(),
        *_processes_table(picture.processes, room=None if height is None else _room(height, picture)),
    )


def _room(height: int, picture: Picture) -> int:
    operations = 1 + len(picture.operations.lanes) if picture.operations.is_used else 0
    above = len(picture.trouble) + len(picture.providers) + (picture.webhooks is not None) + operations
    return max(1, height - _ABOVE_PROCESSES - above)


def _provider(one: ProviderRow) -> Text:
    parts = [f"provider {one.name}"]
    if one.mode != "on":
        parts.append(f"{'draining' if one.mode == 'drain' else 'off'} ({one.reason})")
    if one.open_s:
        parts.append(f"circuit open for {_seconds(one.open_s)}")
    if one.workers_open:
        parts.append(f"circuit open in {one.workers_open} worker{'s' if one.workers_open > 1 else ''}")
    return Text(": ".join((parts[0], ", ".join(parts[1:]))), style="bold yellow", overflow="ellipsis", no_wrap=True)


def _operations(row: OperationsRow) -> list[RenderableType]:
    if not row.is_used:
        return []
    return [Text(row.text(), style="bold yellow" if row.in_trouble else "", overflow="ellipsis", no_wrap=True)]


def _webhooks(row: WebhookRow | None) -> list[RenderableType]:
    if row is None:
        return []
    return [Text(row.text(), style="bold yellow" if row.in_trouble else "", overflow="ellipsis", no_wrap=True)]


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
        (
            f"deferred {_rate(picture.deferred_per_s)}",
            f"requires action {_count(picture.requires_action)}",
            f"submitted {_count(picture.submitted)}, authorized {_count(picture.authorized)}",
        ),
    ):
        grid.add_row(*row)
    return grid


def _lanes_table(lanes: Sequence[LaneRow]) -> Table:
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


def _processes_table(processes: Sequence[ProcessRow], *, room: int | None) -> list[RenderableType]:
    if not processes:
        return [Text("no processes: start an API and a worker", style="yellow")]
    shown = processes if room is None or len(processes) <= room else processes[: max(1, room - 1)]
    table = _table("process", "role", "state", "in hand", "pending", "idle", "out", "CPU")
    # By name: sorted by load, rows of about the same load would change places with every picture.
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
    """Return both ends of a name: the first identifies the machine, the last the process."""
    return name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH // 2]}…{name[-(NAME_WIDTH - 1) // 2 :]}"


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}/s" if per_s >= 100 or per_s == 0 else f"{per_s:.1f}/s"


def _count(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else format_duration(timedelta(seconds=seconds))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        justify: Literal["left", "right"] = "left" if column in {"lane", "process", "role", "state"} else "right"
        table.add_column(column, justify=justify, no_wrap=True, min_width=_WIDTHS.get(column))
    return table
