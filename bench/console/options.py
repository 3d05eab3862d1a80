"""The options of `python -m bench.console`, and the parts that they choose from."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.chosen_parts import chosen

PARTS = {
    "a": "first load",
    "b": "CPU of one page",
    "c": "live tabs",
    "d": "payments beside live tabs",
    "e": "pages over many payments",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleBenchOptions:
    """The figures to measure, and the amount of work for each."""

    only: str = ",".join(PARTS)
    rounds: int = 5
    requests: int = 300
    tabs: int = 50
    seconds: float = 10.0
    workers: int = 2
    connections: int = 64
    payments: int = 1_000_000
    quick: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        chosen(self.only, PARTS)
        if min(self.rounds, self.requests, self.tabs, self.workers, self.connections) < 1 or self.payments < 1_000:
            raise ValueError("rounds, requests, tabs, workers and connections must be at least 1, payments 1,000")
        if not 1 <= self.seconds <= 3_600:
            raise ValueError("a load lasts a second to an hour")

    @property
    def letters(self) -> tuple[str, ...]:
        return chosen(self.only, PARTS)

    def made_quick(self) -> ConsoleBenchOptions:
        """Return these options with the smallest numbers that exercise everything."""
        return replace(self, rounds=1, requests=3, tabs=6, seconds=1.0, payments=1_000, quick=True)

    @property
    def settling_s(self) -> float:
        """Seconds from the opening of tabs to a measurement: until then they have no ETag, and get their regions in full."""
        return 0.5 if self.quick else 4.0
