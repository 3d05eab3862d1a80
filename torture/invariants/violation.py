"""One thing that must not be, and what shows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """`invariant` is its name, such as I1; `subject` a payment, a client's key, a lane, a process or a log."""

    invariant: str
    subject: str
    what: str
    evidence: str
