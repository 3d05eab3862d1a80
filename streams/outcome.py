"""What a handler may answer: a closed set, so that nothing is counted as success by accident."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from streams.values import value


@value
class Done:
    """The message is acked: the entry is acknowledged and deleted."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again: after `after` if given, otherwise as the consumer's RetryPolicy says (which may find it spent)."""

    reason: str
    after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Dead:
    """Give up: the message goes to the dead-letter stream with `reason`."""

    reason: str


Outcome = Done | Retry | Dead
