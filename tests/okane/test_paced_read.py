"""Reads that are repeated the less often the longer they take."""

from __future__ import annotations

import pytest

from okane.monitoring.paced_read import PAUSES, PacedRead


class Counting:
    """A read that takes `takes_s` of its own clock, and counts."""

    def __init__(self, takes_s: float) -> None:
        self.takes_s = takes_s
        self.now_s = 100.0
        self.reads = 0
        self.error: Exception | None = None

    async def read(self) -> int:
        self.now_s += self.takes_s
        self.reads += 1
        if self.error is not None:
            raise self.error
        return self.reads


@pytest.mark.parametrize(
    ("takes_s", "every_s", "used_s"), [(0.0, 5.0, 5.0), (0.01, 5.0, 5.0), (1.0, 5.0, PAUSES), (0.5, 0.0, PAUSES / 2)]
)
async def test_an_answer_is_used_again_for_a_time_or_longer_if_it_took_long(
    takes_s: float, every_s: float, used_s: float
) -> None:
    one = Counting(takes_s)
    paced = PacedRead(one.read, every_s=every_s, clock=lambda: one.now_s)
    assert await paced.get() == 1
    one.now_s += used_s - 0.001
    assert await paced.get() == 1
    one.now_s += 0.002
    assert await paced.get() == 2


async def test_a_read_that_failed_or_is_forgotten_is_made_again_at_once() -> None:
    one = Counting(1.0)
    paced = PacedRead(one.read, every_s=5.0, clock=lambda: one.now_s)
    one.error = OSError("away")
    with pytest.raises(OSError, match="away"):
        await paced.get()
    one.error = None
    assert await paced.get() == 2
    paced.forget()
    assert await paced.get() == 3
