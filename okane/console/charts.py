"""Small charts as points of an SVG polyline, drawn by the server. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 100, 30
MARGIN = 2  # so that a line at the edge keeps its thickness


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart of WIDTH by HEIGHT. `lines` are the `points` of its polylines: a gap in the values begins another one.

    `last`, `least` and `most` are values, None without any.
    """

    lines: Sequence[str]
    last: float | None
    least: float | None
    most: float | None


def draw(values: Sequence[float | None]) -> Chart:
    """Return the chart of values in the order of time, the newest at the right edge. The lowest line is 0."""
    known = [value for value in values if value is not None]
    if not known:
        return Chart((), None, None, None)
    most = max(known)
    step = WIDTH / max(1, len(values) - 1)
    lines: list[list[str]] = [[]]
    for place, value in enumerate(values):
        if value is None:
            lines.append([])
            continue
        height = (HEIGHT - 2 * MARGIN) * (value / most if most > 0 else 0)
        lines[-1].append(f"{place * step:.1f},{HEIGHT - MARGIN - height:.1f}")
    drawn = tuple(" ".join(line) for line in lines if len(line) > 1)
    return Chart(drawn, known[-1] if values[-1] is not None else None, min(known), most)
