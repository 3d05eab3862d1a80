"""The journal of the mock provider's captures, voids, refunds and disputes: a file of its own beside that of the charges.

An entry never changes. What a provider decides later (a refund that is pending, or fails after days) is drawn when it is
asked for, and written with the time from which it holds.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from okane.simulator.journal import EntryJournal, encoded_line


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationEntry:
    """One line: the decision for one idempotency key. Times are UTC, ISO 8601. `charge` is the key of the charge.

    `status` is `succeeded`, `pending` or `failed`, and from `changes_at` on `later`.
    """

    key: str
    kind: str  # "capture", "void" or "refund"
    charge: str
    payment_id: str
    operation_id: str
    amount: int
    currency: str
    status: str
    provider_ref: str
    at: str
    code: str | None = None
    changes_at: str | None = None
    later: str | None = None

    def to_line(self) -> bytes:
        return encoded_line(asdict(self))

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """Parse a line of `to_line`. Raises ValueError or TypeError."""
        return cls(**json.loads(line))

    def status_at(self, now: datetime) -> str:
        """Return the status at this time."""
        if self.changes_at is None or self.later is None or now < datetime.fromisoformat(self.changes_at):
            return self.status
        return self.later


class OperationJournal(EntryJournal[OperationEntry]):
    """The journal of the operations, with all of its entries in memory, by charge: a mock executes few."""

    shape = re.compile(rb'\{"key":("(?:[^"\\]|\\.)*"),"kind":.*,"status":"(succeeded|pending|failed)",.*\}\n')

    @classmethod
    def open(cls, path: Path) -> Self:
        journal = super().open(path)
        journal.by_charge = defaultdict(list)
        for entry in journal.read_all():
            journal.by_charge[entry.charge].append(entry)
        return journal

    by_charge: dict[str, list[OperationEntry]]

    def parse(self, line: bytes) -> OperationEntry:
        return OperationEntry.from_line(line)

    def of_charge(self, key: str) -> Sequence[OperationEntry]:
        """Return the operations of a charge, the oldest first."""
        return self.by_charge.get(key, ())

    async def append(self, entry: OperationEntry) -> None:
        if self.find(entry.key) is None:
            self.by_charge[entry.charge].append(entry)
        await super().append(entry)

    def read_all(self) -> Iterator[OperationEntry]:
        """Return the entries of the file. Blocks."""
        return (self.parse(line) for line in self.read_lines())
