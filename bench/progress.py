"""Print progress to stderr: stdout is for the results."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

_EVERY_S = 2.0
_started = time.monotonic()


def say(text: str) -> None:
    """One line, with the seconds since the start."""
    print(f"[{time.monotonic() - _started:5.0f} s] {text}", file=sys.stderr, flush=True)


def counting(total: int) -> Callable[[int], None]:
    """Print how many of `total` payments are settled, every two seconds at most."""
    next_s = time.monotonic() + _EVERY_S

    def on_progress(settled: int) -> None:
        nonlocal next_s
        if time.monotonic() >= next_s:
            next_s = time.monotonic() + _EVERY_S
            say(f"{settled:,} of {total:,} settled")

    return on_progress
