"""The delays between the attempts of one delivery. Pure: the random number is an argument.

Ten retries over 76 hours at most. Half of a delay is fixed and half is jitter: deliveries that failed together spread out,
and none comes back at once.
"""

from __future__ import annotations

from collections.abc import Sequence

DELAYS_S: Sequence[float] = (5, 30, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
LONGEST_RETRY_AFTER_S = 3600.0  # an endpoint may not postpone a delivery beyond it


def retry_delay_s(
    attempts: int, *, roll: float, retry_after_s: float | None = None, delays_s: Sequence[float] = DELAYS_S
) -> float | None:
    """Return the delay after the failed attempt number `attempts`, given `roll` in [0, 1); None after the last one.

    `retry_after_s` is the endpoint's own wish: it postpones the retry, and never brings it forward.
    """
    if attempts < 1 or not 0 <= roll < 1:
        raise ValueError(f"attempts count from 1 and a roll is in [0, 1): {attempts}, {roll}")
    if attempts > len(delays_s):
        return None
    delay_s = delays_s[attempts - 1] * (1 + roll) / 2
    return max(delay_s, pause_s(retry_after_s))


def pause_s(retry_after_s: float | None) -> float:
    """Return the seconds for which an endpoint may postpone what it gets, by its Retry-After."""
    return 0.0 if retry_after_s is None else min(max(retry_after_s, 0.0), LONGEST_RETRY_AFTER_S)
