"""What a consumer is handed: one stream entry, parsed. Pure data, no Redis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from streams.values import value


@value
class Message:
    """One delivery of one stream entry.

    `attempt` counts how often the message was tried before by policy, plus one: it travels in the entry and survives
    retries. `deliveries` is the consumer group's own count for this entry: above one means that a consumer took it and
    did not ack it (it died, or outlived its claim).
    """

    id: str
    lane: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 1
    deliveries: int = 1
    group: str | None = None
