"""The options of `okane up`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def _port(default: int | None, description: str) -> Any:
    return field(default=default, metadata={"help": description, "min": 0, "max": 65535})


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """The options of `okane up`. Port 0 is any free one; None for `port`, `console_port` and `provider_port` is the
    settings' one."""

    data: Path | None = field(default=None, metadata={"help": "data folder of `okane up` (default: .okane)"})
    workers: int = field(default=2, metadata={"help": "worker processes", "min": 1, "max": 64})
    port: int | None = _port(None, "the API's port (default: PORT or 8080)")
    console_port: int | None = _port(None, "the console's port (default: 8082)")
    provider_port: int | None = _port(None, "the mock provider's, or the Stripe simulator's (default: 8081)")
    postgres_port: int = _port(15432, "the embedded Postgres'")
    redis_port: int = _port(16379, "the embedded Redis'")
    metrics_port: int = _port(9101, "the API's metrics; workers, dispatcher and console take the next ones")
    stripe: bool = field(
        default=False,
        metadata={"help": "charge at a local Stripe simulator (Python 3.13 or 3.14)", "flag": "--stripe"},
    )
    no_keys: bool = field(
        default=False,
        metadata={"help": "accept requests without an API key", "flag": "--no-keys"},
    )
