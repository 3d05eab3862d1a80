"""A message: one stream entry, parsed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from streams.values import value


@value
class Message:
    """One delivery of one stream entry.

    `attempt` is one more than the retries so far; it is in the entry, and survives retries. `deliveries` is the group's own
    count for this entry: above one, an earlier consumer read it and did not ack it (it died, or lost its lease).
    """

    id: str
    lane: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 1
    deliveries: int = 1
    group: str | None = None
