"""A report as text for a person. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.report import Figure, Part, Report
from bench.targets import TARGETS, Standing, Target, standings

_NAME = 52


def render(report: Report, targets: Sequence[Target] = TARGETS) -> str:
    return "\n".join(_lines(report, targets))


def number(value: float) -> str:
    """With as many digits as mean something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _lines(report: Report, targets: Sequence[Target]) -> Iterator[str]:
    yield ", ".join(f"{name} {value}" for name, value in report.machine.items())
    if report.quick:
        yield "QUICK: these numbers show that it works, and nothing else"
    for part in report.parts:
        yield ""
        yield from _part(part)
    yield ""
    yield f"{'figure':<{_NAME}}{'measured':>10}{'reach':>10}{'moonshot':>10}"
    for standing in standings(report, targets):
        if standing.value is not None:
            yield _standing(standing)


def _part(part: Part) -> Iterator[str]:
    yield f"{part.letter}. {part.title}"
    for figure in part.figures:
        yield _figure(figure)
    for note in part.notes:
        yield f"  - {note}"


def _figure(figure: Figure) -> str:
    line = f"  {figure.name:<{_NAME}}{number(figure.median):>10} {figure.unit}"
    if len(figure.rounds) == 1:
        return line
    return f"{line:<78} ({number(min(figure.rounds))} to {number(max(figure.rounds))})"


def _standing(standing: Standing) -> str:
    target, value = standing.target, standing.value
    assert value is not None
    verdict = "" if target.reached(value) else "  short"
    cells = "".join(f"{number(one):>10}" for one in (value, target.reach, target.moonshot))
    return f"{target.what:<{_NAME}}{cells}{verdict}"
