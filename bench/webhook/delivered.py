"""The wait until a receiver has every event."""

from __future__ import annotations

import time

from bench import receiver as receiving
from bench.system import Deployment, Provider

_WITHIN_S = 120.0


def wait_delivered(deployment: Deployment, target: Provider, count: int) -> None:
    """Return once the receiver has had `count` events. Raises TimeoutError after two minutes."""
    deadline_s = time.monotonic() + _WITHIN_S
    while receiving.count(target.url) < count:
        deployment.check_alive()
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{receiving.count(target.url):,} of {count:,} events delivered after {_WITHIN_S} s")
        time.sleep(0.05)
