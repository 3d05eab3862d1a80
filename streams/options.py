"""The tuning of a consumer. The table in docs/streams.md explains each option."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from streams.retry import RetryPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerOptions:
    """The limits and durations of one consumer."""

    concurrency: int = 64
    max_batch: int = 128
    lease: timedelta = timedelta(seconds=30)
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    max_deliveries: int = 5
    block: timedelta = timedelta(seconds=1)
    gather: timedelta = timedelta(milliseconds=20)
    reclaim_every: timedelta | None = None
    drain: timedelta = timedelta(seconds=25)

    def __post_init__(self) -> None:
        if min(self.concurrency, self.max_batch) < 1 or min(self.lease, self.block) <= timedelta(0):
            raise ValueError("concurrency, max_batch, lease and block are positive")
