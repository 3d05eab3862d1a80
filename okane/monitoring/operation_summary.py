"""The state of captures, voids and refunds as `okane status` and `okane top` show it, from Postgres."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from okane.duration_text import format_duration
from okane.operation import TERMINAL, OperationKind, OperationStatus
from okane.store import Overview


@dataclass(frozen=True, slots=True)
class OperationCounts:
    """Those that are open or need a review, by kind and status; how long the longest waiting one has been due; how many were
    given up or need a review."""

    waiting: Mapping[tuple[OperationKind, OperationStatus], int]
    oldest_due: timedelta
    dead: int

    def count(self, status: OperationStatus) -> int:
        """Return the number of those in one status."""
        return count_in(self.waiting, status)

    @property
    def in_trouble(self) -> bool:
        """True if an operator should look."""
        return bool(self.dead or self.count(OperationStatus.UNKNOWN) or self.count(OperationStatus.NEEDS_REVIEW))


def count_in(waiting: Mapping[tuple[OperationKind, OperationStatus], int], status: OperationStatus) -> int:
    """Return the number of those in one status, of all kinds."""
    return sum(waiting[key] for key in waiting if key[1] is status)


async def read_counts(overview: Overview) -> OperationCounts:
    """Read the counts. Raises StoreUnavailable."""
    return OperationCounts(
        waiting=await overview.count_waiting_operations(),
        oldest_due=await overview.oldest_due_operation(),
        dead=await overview.count_dead_operations(),
    )


def to_json(counts: OperationCounts | None) -> dict[str, Any]:
    """Return the counts as `--json` prints them; None for each while Postgres is away."""
    if counts is None:
        return {"waiting": None, "oldest_due_s": None, "dead": None}
    open_ones = [status for status in OperationStatus if status not in TERMINAL]
    return {
        "waiting": {
            kind.value: {status.value: counts.waiting.get((kind, status), 0) for status in open_ones}
            for kind in OperationKind
        },
        "oldest_due_s": counts.oldest_due.total_seconds(),
        "dead": counts.dead,
    }


def line(counts: OperationCounts | None, *, delayed: int | None, settled_per_s: float | None = None) -> str:
    """Return the state in one line of 80 columns at most, as long as its figures are not extreme."""
    parts = ["operations"]
    # Trouble first: a narrow terminal cuts the end of the line.
    if counts is not None:
        for words, number in (
            ("needs review", counts.count(OperationStatus.NEEDS_REVIEW)),
            ("unknown", counts.count(OperationStatus.UNKNOWN)),
            ("dead letters", counts.dead),
        ):
            if number:
                parts.append(f"{words} {number:,}")
        parts.append(f"oldest due {format_duration(counts.oldest_due) if counts.oldest_due else '-'}")
    if settled_per_s is not None:
        parts.append(f"settled {settled_per_s:,.0f}/s")
    if delayed is not None:
        parts.append(f"delayed {delayed:,}")
    return "  ".join(parts)
