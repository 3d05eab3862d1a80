"""The options of `python -m bench.webhooks`, and the parts that they choose from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from bench.chosen_parts import chosen

PARTS = {
    "a": "Postgres' cost of a settled payment",
    "b": "end to end: POST to settled, or to delivered",
    "c": "one dispatcher beside one API process",
    "d": "20 endpoints, one of which never answers",
    "e": "CPU of one request",
    "f": "idle endpoints",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookBenchOptions:
    """`before` is a checkout of a version without webhooks: today's figures come from it, else from no subscriber."""

    only: str = ",".join(PARTS)
    rounds: int = 5
    seconds: float = 3.0
    workers: int = 2
    connections: int = 64
    events: int = 40_000
    endpoints: int = 10_000
    rate: float = 200.0
    before: Path | None = None
    quick: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        chosen(self.only, PARTS)
        if min(self.rounds, self.workers, self.connections, self.events, self.endpoints) < 1:
            raise ValueError("rounds, workers, connections, events and endpoints must be at least 1")
        if not 1 <= self.seconds <= 3_600 or not 1 <= self.rate <= 10_000:
            raise ValueError("a load lasts a second to an hour, at 1 to 10,000 changes a second")
        if self.before is not None and not (self.before / "okane").is_dir():
            raise ValueError(f"{self.before} is no checkout of okane")

    @property
    def letters(self) -> tuple[str, ...]:
        return chosen(self.only, PARTS)

    def made_quick(self) -> WebhookBenchOptions:
        """Return these options with the smallest numbers that exercise everything."""
        return replace(self, rounds=1, seconds=1.0, events=1_000, endpoints=100, quick=True)
