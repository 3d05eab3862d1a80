"""The drawing of each kind of panel, with matplotlib. Each function returns the number of points that it drew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

from matplotlib.axes import Axes
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator
from matplotlib.transforms import ScaledTranslation, blended_transform_factory

from grafana.screens.boards import Board, Panel
from grafana.screens.prometheus import Series
from grafana.screens.units import format_value

CANVAS, PANEL, GRID, TEXT, FAINT = "#111217", "#1a1c21", "#2e3036", "#d8d9e2", "#9a9ba6"
_BACK = {"green": "#37873f", "orange": "#c4761b", "red": "#c4313f"}  # of a stat
COLOURS = {
    "green": "#73bf69",
    "light-green": "#96d98d",
    "yellow": "#f2cc0c",
    "semi-dark-yellow": "#e0b400",
    "orange": "#ff9830",
    "red": "#f2495c",
    "purple": "#b877d9",
    "blue": "#5794f2",
    "light-blue": "#8ab8ff",
    "dark-blue": "#1f60c4",
}
_CYCLE = (
    "#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#19b5a5", "#fade2a", "#c0d8ff",
    "#ffb357", "#ff7383", "#96d98d", "#ca95e5", "#e0b400", "#3274d9",
)  # fmt: skip
_LEGEND_CHARACTERS = 150  # on one line, over the width of a whole dashboard
_LEGEND_LINES = 4
_TICKS_S = (60, 120, 300, 600, 1_800, 3_600, 10_800, 43_200, 86_400, 604_800, 2_592_000)


def legend_lines(panel: Panel) -> int:
    """Return the number of lines in the legend of a panel."""
    return len(_legend(panel)) if panel.kind == "timeseries" else 0


def time_series(axes: Axes, panel: Panel, board: Board) -> int:
    """Draw lines, or stacked areas, with the red threshold and the starts of processes."""
    times, colours = board.span.moments, _colours(panel)
    if panel.stacked:
        layers = [[0.0 if math.isnan(value) else value for value in one.series.values] for one in panel.answers]
        axes.stackplot(times, layers, colors=colours, alpha=0.6, linewidth=0)
        highest = max(float(sum(layer)) for layer in zip(*layers, strict=True))
    else:
        for one, colour in zip(panel.answers, colours, strict=True):
            axes.plot(times, one.series.values, color=colour, linewidth=1.1, solid_joinstyle="round")
            axes.fill_between(times, one.series.values, color=colour, alpha=0.08, linewidth=0)
        highest = max(value for one in panel.answers for value in one.series.values if math.isfinite(value))
    _scale(axes, panel, highest)
    _moments(axes, board)
    _red(axes, panel)
    _marks(axes, board)
    _write_legend(axes, panel, left_in=_make_room(axes))
    return sum(one.series.points for one in panel.answers)


def stat(axes: Axes, panel: Panel, board: Board) -> int:
    """Draw the last value on the colour of its threshold, with its past behind it."""
    [series] = [one.series for one in panel.answers]
    colour = next(colour for value, colour in reversed(panel.steps) if series.last >= value)
    axes.set_facecolor(_BACK[colour])
    axes.set_xticks([])
    axes.set_yticks([])
    high, low = (pick(filter(math.isfinite, series.values)) for pick in (max, min))
    axes.fill_between(board.span.moments, series.values, low, color="white", alpha=0.15, linewidth=0)
    axes.plot(board.span.moments, series.values, color="white", alpha=0.5, linewidth=1)
    axes.set_ylim(low, low + (high - low or 1) * 3)  # the past takes the lowest third
    axes.set_xlim(*_ends(board))
    axes.text(
        0.5,
        0.56,
        _said(panel, series.last),
        transform=axes.transAxes,
        ha="center",
        va="center",
        color="white",
        fontsize=20,
        weight="bold",
    )
    return series.points


def _said(panel: Panel, value: float) -> str:
    shown = float(round(value)) if panel.whole else value
    return panel.words.get(shown) or format_value(shown, panel.unit)


def heat_map(axes: Axes, panel: Panel, board: Board) -> int:
    """Draw each bucket of a histogram over time, without the buckets below it; empty ones are not drawn."""
    buckets = sorted(panel.answers, key=lambda one: float(one.series.labels["le"]))
    below: Sequence[float] = [0.0] * len(board.span.moments)
    cells = []
    for bucket in buckets:
        own = [value - under for value, under in zip(bucket.series.values, below, strict=True)]
        cells.append([value if value > 1e-9 else math.nan for value in own])
        below = [0.0 if math.isnan(value) else value for value in bucket.series.values]
    step = board.span.step_s
    edges = [at - step for at in (*board.span.moments, board.span.moments[-1] + step)]
    axes.pcolormesh(edges, range(len(buckets) + 1), cells, cmap="Blues_r", linewidth=0)
    names = [_bound(bucket.series.labels["le"], panel.unit) for bucket in buckets]
    every = math.ceil(len(names) / 8)
    axes.set_yticks(range(1, len(names) + 1, every), names[::every])
    _moments(axes, board)
    _make_room(axes)
    return sum(math.isfinite(value) for row in cells for value in row)


def table(axes: Axes, panel: Panel, _board: Board) -> int:
    """Draw a row for each value of the label that joins the queries."""
    axes.axis("off")
    values = {(one.series.labels[panel.by], one.column): one.series.last for one in panel.answers}
    rows = sorted({row for row, _ in values})
    texts = [
        [
            row,
            *(
                format_value(values[row, column], unit) if (row, column) in values else ""
                for column, unit in panel.units.items()
            ),
        ]
        for row in rows
    ]
    columns = [panel.by, *panel.units]
    made = axes.table(
        texts,
        colLabels=columns,
        colWidths=[0.96 / len(columns)] * len(columns),
        loc="upper left",
        cellLoc="left",
        colLoc="left",
        edges="horizontal",
    )
    made.auto_set_font_size(False)
    made.set_fontsize(9)
    made.scale(1, 1.5)
    for (row, _), cell in made.get_celld().items():
        cell.set_edgecolor(GRID)
        cell.get_text().set_color("#6e9fff" if row == 0 else TEXT)
    return len(values)


def _ends(board: Board) -> tuple[float, float]:
    return board.span.moments[0], board.span.moments[-1]


def _moments(axes: Axes, board: Board) -> None:
    axes.set_xlim(*_ends(board))
    first, last = _ends(board)
    step = next(each for each in _TICKS_S if (last - first) / each < 6)
    ticks = range(math.ceil(first / step) * step, math.ceil(last), step)
    axes.set_xticks(ticks, [_clock(at) for at in ticks])
    axes.tick_params(colors=FAINT, labelsize=7.5, length=0)


def _scale(axes: Axes, panel: Panel, highest: float) -> None:
    """Set a scale from 0 on, with some space above the highest value."""
    top = max(highest * 1.08, panel.soft_max) or 1
    axes.set_ylim(0, top)
    step = 2.0 ** math.ceil(math.log2(top / 5))
    by_two = panel.unit == "bytes"
    axes.yaxis.set_major_locator(MultipleLocator(step) if by_two else MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _at: format_value(value, panel.unit)))
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def _make_room(axes: Axes) -> float:
    """Move the left end to make room for the labels of the values. Return the distance in inches."""
    inches = 0.12 + 0.065 * max(len(label.get_text()) for label in axes.get_yticklabels())
    place = axes.get_position()
    part = inches * axes.figure.dpi / axes.figure.bbox.width
    axes.set_position((place.x0 + part, place.y0, place.width - part, place.height))
    return inches


def _red(axes: Axes, panel: Panel) -> None:
    """Draw the threshold as a line with a tint above it, if it is within the scale."""
    top = axes.get_ylim()[1]
    for value, colour in panel.steps:
        if 0 < value < top:
            axes.axhline(value, color=COLOURS[colour], linewidth=1, linestyle=(0, (6, 4)))
            axes.axhspan(value, top, color=COLOURS[colour], alpha=0.12, linewidth=0)


def _marks(axes: Axes, board: Board) -> None:
    """Draw a line where a process started."""
    for start in starts(board.marks, board.span.moments):
        axes.axvline(start, color=COLOURS["blue"], linewidth=0.9, linestyle=(0, (3, 2)))
        foot = blended_transform_factory(axes.transData, axes.transAxes)
        axes.plot([start], [0], marker="^", markersize=4, color=COLOURS["blue"], transform=foot, clip_on=False)


def starts(marks: Sequence[Series], moments: Sequence[float]) -> list[float]:
    """Return the moments at which a run of points of an annotation begins."""
    found = set()
    for series in marks:
        before = math.nan
        for moment, value in zip(moments, series.values, strict=True):
            if math.isfinite(value) and math.isnan(before):
                found.add(moment)
            before = value
    return sorted(found)


def _colours(panel: Panel) -> list[str]:
    """Return the colour of each series: that of its name, or the next in the cycle."""
    return [
        COLOURS[panel.colours[one.name]] if one.name in panel.colours else _CYCLE[at % len(_CYCLE)]
        for at, one in enumerate(panel.answers)
    ]


def _legend(panel: Panel) -> list[list[tuple[str, str]]]:
    """Return colours and names of the series, in lines; the last line counts the series without room."""
    room = _LEGEND_CHARACTERS * panel.place.w // 24
    lines: list[list[tuple[str, str]]] = [[]]
    for colour, one in zip(_colours(panel), panel.answers, strict=True):
        if lines[-1] and sum(len(name) + 4 for _, name in lines[-1]) + len(one.name) + 4 > room:
            lines.append([])
        lines[-1].append((colour, one.name))
    if len(lines) > _LEGEND_LINES:
        shown = lines[: _LEGEND_LINES - 1]
        return [*shown, [("none", f"and {len(panel.answers) - sum(map(len, shown))} more")]]
    return lines


def _write_legend(axes: Axes, panel: Panel, *, left_in: float) -> None:
    inch = axes.figure.dpi_scale_trans
    below = axes.transAxes + ScaledTranslation(-left_in, -0.28, inch)
    for number, line in enumerate(_legend(panel)):
        names = [name for _, name in line]
        handles = [Line2D([], [], color=colour, linewidth=2.5) for colour, _ in line]
        made = Legend(
            axes,
            handles,
            names,
            loc="upper left",
            bbox_to_anchor=(0, 0),
            bbox_transform=below + ScaledTranslation(0, -0.17 * number, inch),
            ncols=len(handles),
            frameon=False,
            fontsize=7.5,
            labelcolor=TEXT,
            handlelength=1.1,
            handletextpad=0.5,
            columnspacing=1.2,
            borderpad=0,
            borderaxespad=0,
        )
        axes.add_artist(made)


def _bound(le: str, unit: str) -> str:
    return "more" if le == "+Inf" else format_value(float(le), unit)


def _clock(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s, UTC).strftime("%H:%M")
