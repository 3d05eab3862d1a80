"""The options of `okane bench`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.chosen_parts import chosen

PARTS = {
    "a": "accept: POST to 202",
    "b": "end to end: POST to settled",
    "c": "the library alone: publish and consume",
    "d": "what a payment costs",
    "e": "growth and scaling",
    "f": "latency at light load",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """The options of `okane bench`. Raises ValueError for values that cannot be run."""

    only: str = field(
        default=",".join(PARTS),
        metadata={"help": "the parts to run: " + "; ".join(f"{letter}: {title}" for letter, title in PARTS.items())},
    )
    rounds: int = field(
        default=3, metadata={"help": "how often every comparison is made; the median counts (part e: two at most)"}
    )
    seconds: float = field(default=3.0, metadata={"help": "how long one load lasts"})
    connections: int = field(default=64, metadata={"help": "of the load generator"})
    workers: int = field(default=2, metadata={"help": "worker processes, end to end"})
    jobs: int = field(default=20_000, metadata={"help": "part c: no-op jobs; the packages that are slower get a fifth"})
    rows: str = field(default="0,1000000", metadata={"help": "part e: how many settled payments the table holds"})
    backlogs: str = field(default="10000,100000", metadata={"help": "part e: how many wake-ups wait"})
    waiting: int = field(default=100_000, metadata={"help": "part e: messages pending or delayed beside the work"})
    processes: str = field(default="1,2,4", metadata={"help": "part e: worker processes"})
    peers: Path = field(
        default=Path(__file__).with_name(".venv"),
        metadata={"help": "part c: the virtual environment that holds requirements-bench.txt"},
    )
    quick: bool = field(
        default=False, metadata={"help": "small numbers, one round: shows that it works, measures nothing"}
    )
    json: bool = field(default=False, metadata={"help": "print one JSON object and nothing else to stdout"})

    def __post_init__(self) -> None:
        chosen(self.only, PARTS)
        counts = (self.rounds, self.connections, self.workers, self.jobs, *self.worker_counts, *self.backlog_sizes)
        if min(counts) < 1:
            raise ValueError("rounds, connections, workers, jobs, processes and backlogs must be at least 1")
        if min(self.waiting, *self.row_counts) < 0:
            raise ValueError("what waits and what the table holds must be at least 0")
        if not 1 <= self.seconds <= 86_400:
            raise ValueError("a load lasts a second at least, and a day at most")

    @property
    def letters(self) -> tuple[str, ...]:
        return chosen(self.only, PARTS)

    @property
    def row_counts(self) -> tuple[int, ...]:
        return _numbers(self.rows)

    @property
    def backlog_sizes(self) -> tuple[int, ...]:
        return _numbers(self.backlogs)

    @property
    def worker_counts(self) -> tuple[int, ...]:
        return _numbers(self.processes)

    def made_quick(self) -> BenchOptions:
        """Return these options with the smallest numbers that exercise everything."""
        return replace(
            self, rounds=1, seconds=1.0, jobs=1_000, rows="0,2000", backlogs="1000,3000", waiting=1_000, processes="1,2"
        )


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise ValueError(f"expected whole numbers with commas between them, not {text!r}") from None
