"""The targets of the figures, and the measured values. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.parts import accept, end_to_end, growth, library, light
from bench.report import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A figure of a part, what it is to reach, and what would be a triumph."""

    what: str
    letter: str
    figure: str
    reach: float
    moonshot: float

    @property
    def more_is_better(self) -> bool:
        return self.moonshot > self.reach

    def reached(self, value: float) -> bool:
        return value >= self.reach if self.more_is_better else value <= self.reach


@dataclass(frozen=True, slots=True)
class Standing:
    """A target and what was measured, None if it was not."""

    target: Target
    value: float | None


TARGETS = (
    Target(what="accept vs textbook", letter="a", figure=accept.VS_TEXTBOOK, reach=7, moonshot=25),
    Target(what="accept vs bare aiohttp + pydantic", letter="a", figure=accept.VS_BARE, reach=0.65, moonshot=2),
    Target(
        what="accept p50, one connection, vs textbook",
        letter="a",
        figure=accept.P50_VS_TEXTBOOK,
        reach=1,
        moonshot=0.45,
    ),
    Target(what="end to end vs textbook", letter="b", figure=end_to_end.VS_TEXTBOOK, reach=8, moonshot=25),
    Target(
        what="CPU per settled payment vs textbook",
        letter="d",
        figure=end_to_end.CPU_VS_TEXTBOOK,
        reach=1 / 7,
        moonshot=1 / 18,
    ),
    Target(what="consume vs bare redis-py loop", letter="c", figure=library.VS_LOOP, reach=0.5, moonshot=0.8),
    Target(what="consume vs best Python peer", letter="c", figure=library.VS_BEST, reach=4, moonshot=10),
    Target(what="batch handler vs FastStream's", letter="c", figure=library.BATCH_VS_BATCH, reach=1, moonshot=1.5),
    Target(what="publish vs one by one redis-py", letter="c", figure=library.PUBLISH_VS_LOOP, reach=3, moonshot=6),
    Target(what="accepted to settled at 50/s, p50, ms", letter="f", figure=light.SETTLED_P50, reach=8, moonshot=4),
    Target(
        what="accepted to settled at half the peak, p99, ms",
        letter="b",
        figure=end_to_end.HALF_PEAK_P99,
        reach=500,
        moonshot=100,
    ),
    Target(
        what="cost of the fullest table vs an empty one", letter="e", figure=growth.ROWS_COST, reach=1.5, moonshot=1.2
    ),
    Target(
        what="cost of the longest backlog vs the shortest",
        letter="e",
        figure=growth.BACKLOG_COST,
        reach=1.5,
        moonshot=1.2,
    ),
    Target(what="second worker adds, of the first", letter="e", figure=growth.SECOND_WORKER, reach=0.7, moonshot=0.9),
)


def standings(report: Report, targets: Sequence[Target] = TARGETS) -> Iterator[Standing]:
    """Every target, in order."""
    for target in targets:
        figure = report.find(target.letter, target.figure)
        yield Standing(target, figure.median if figure is not None else None)
