"""The outcomes of a handler: a closed set, so that nothing counts as success by accident."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from streams.values import value


@value
class Done:
    """The message is done: its entry is acknowledged and deleted."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again after `after`, or without it after the delay of the consumer's RetryPolicy, which may have no attempts
    left."""

    reason: str
    after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Dead:
    """Give up: the message becomes a dead letter with `reason`."""

    reason: str


Outcome = Done | Retry | Dead
