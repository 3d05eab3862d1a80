"""A rate of requests: `100/s`, `6000/m`, `100/s burst 500`. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

_RATE = re.compile(r"([1-9]\d{0,8})/([smh])(?: burst ([1-9]\d{0,8}))?", re.ASCII)
_UNIT_S = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Rate:
    """A number of requests per window on average, and `burst` at once, which defaults to the number of one window."""

    requests: int
    window_s: int
    burst: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a rate. Raises ValueError."""
        match = _RATE.fullmatch(text.strip())
        if match is None:
            raise ValueError("expected a rate like 100/s, 6000/m or 100/s burst 500")
        return cls(int(match[1]), _UNIT_S[match[2]], int(match[3] or match[1]))

    @property
    def per_s(self) -> float:
        return self.requests / self.window_s

    def __str__(self) -> str:
        unit = next(unit for unit, size_s in _UNIT_S.items() if size_s == self.window_s)
        burst = f" burst {self.burst}" if self.burst != self.requests else ""
        return f"{self.requests}/{unit}{burst}"
