"""One dashboard as one picture, with its panels in their places on the grid."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from grafana.screens import kinds
from grafana.screens.boards import Board, Panel, Place

WIDTH_IN, ROW_IN, HEAD_IN, DPI = 12.0, 0.3, 0.62, 130
_GAP_IN: Final = 0.05
_KINDS: Mapping[str, Callable[[Axes, Panel, Board], int]] = {
    "timeseries": kinds.time_series,
    "stat": kinds.stat,
    "heatmap": kinds.heat_map,
    "table": kinds.table,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A panel in the picture, and the number of its points."""

    board: str
    title: str
    points: int


def picture(board: Board) -> tuple[bytes, Sequence[Drawn]]:
    """Return the dashboard as PNG, and the panels on it."""
    height = HEAD_IN + ROW_IN * max(one.place.y + one.place.h for one in board.panels) + _GAP_IN
    figure = Figure(figsize=(WIDTH_IN, height), facecolor=kinds.CANVAS)
    _head(figure, board)
    drawn = []
    for panel in board.panels:
        if panel.kind == "row":
            _heading(figure, panel)
        else:
            drawn.append(Drawn(board=board.uid, title=panel.title, points=_panel(figure, panel, board)))
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, facecolor=kinds.CANVAS)
    return _small(file), drawn


def _small(png: io.BytesIO) -> bytes:
    """Reduce the picture to the 256 best colours: half the size, without a visible difference."""
    file = io.BytesIO()
    Image.open(png).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        file, format="png", optimize=True
    )
    return file.getvalue()


def _head(figure: Figure, board: Board) -> None:
    width, height = figure.get_size_inches()
    chosen = "   ".join(f"{name}: {value.replace('.*', 'All')}" for name, value in board.chosen.items())
    first, last = (datetime.fromtimestamp(at, UTC) for at in (board.span.from_s, board.span.to_s))
    times = f"{first:%Y-%m-%d %H:%M} to {last:%H:%M} UTC"
    left, top = 0.12 / width, 1 - 0.12 / height
    figure.text(left, top, board.title, color=kinds.TEXT, fontsize=13, weight="bold", va="top")
    figure.text(left, top - 0.28 / height, chosen, color=kinds.FAINT, fontsize=8, va="top")
    said = f"{times}\nDrawn from Prometheus' data by python -m grafana.screens, not by Grafana."
    figure.text(1 - left, top, said, color=kinds.FAINT, fontsize=8, va="top", ha="right", linespacing=1.6)


def _heading(figure: Figure, row: Panel) -> None:
    x, y, _, height = _box(figure, row.place)
    figure.text(x + 0.004, y + height / 2, row.title, color=kinds.TEXT, fontsize=9.5, weight="bold", va="center")


def _panel(figure: Figure, panel: Panel, board: Board) -> int:
    x, y, width, height = _box(figure, panel.place)
    frame = FancyBboxPatch(
        (x, y), width, height, boxstyle="square,pad=0", facecolor=kinds.PANEL, edgecolor=kinds.GRID, zorder=-1
    )
    figure.add_artist(frame)
    title = textwrap.shorten(panel.title, width=panel.place.w * 6, placeholder="…")
    inch_x, inch_y = (1 / size for size in figure.get_size_inches())
    is_stat = panel.kind == "stat"
    below = {"timeseries": 0.34 + 0.18 * kinds.legend_lines(panel), "heatmap": 0.3}.get(panel.kind, 0.0)
    left = 0.0 if is_stat else 0.1
    right, above = (0.0, 0.0) if is_stat else (0.15, 0.34)
    axes = figure.add_axes(
        (
            x + left * inch_x,
            y + below * inch_y,
            width - (left + right) * inch_x,
            height - (below + above) * inch_y,
        ),
        facecolor=kinds.PANEL,
    )
    for side in axes.spines.values():
        side.set_visible(False)
    points = _KINDS[panel.kind](axes, panel, board) if panel.answers else _nothing(axes)
    colour = "white" if is_stat and points else kinds.TEXT
    figure.text(x + 0.1 * inch_x, y + height - 0.09 * inch_y, title, color=colour, fontsize=8.5, va="top")
    return points


def _nothing(axes: Axes) -> int:
    axes.axis("off")
    axes.text(0.5, 0.5, "No data", transform=axes.transAxes, ha="center", va="center", color=kinds.FAINT, fontsize=10)
    return 0


def _box(figure: Figure, place: Place) -> tuple[float, float, float, float]:
    """Return the corner and size of a place as fractions of the figure."""
    width, height = figure.get_size_inches()
    column = (width - _GAP_IN) / 24
    return (
        (place.x * column + _GAP_IN) / width,
        1 - (HEAD_IN + (place.y + place.h) * ROW_IN - _GAP_IN) / height,
        (place.w * column - _GAP_IN) / width,
        (place.h * ROW_IN - _GAP_IN) / height,
    )
