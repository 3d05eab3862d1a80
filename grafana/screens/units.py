"""Values with their units, formatted as in Grafana: three digits, and a fitting multiple of the unit."""

from __future__ import annotations

import math
from collections.abc import Sequence

_COUNTS = ((1, ""), (1e3, " K"), (1e6, " Mil"), (1e9, " Bil"))
_BYTES = ((1, " B"), (2**10, " KiB"), (2**20, " MiB"), (2**30, " GiB"))
_SECONDS = ((1e-9, " ns"), (1e-6, " µs"), (1e-3, " ms"), (1, " s"), (60, " min"), (3_600, " hour"), (86_400, " day"))
_PER_SECOND = {"reqps": "req/s", "mps": "msg/s", "ops": "ops/s"}


def format_value(value: float, unit: str) -> str:
    """Return the value with its unit. Raises ValueError for a unit that no dashboard has yet."""
    match unit:
        case "short":
            return _scaled(value, _COUNTS)
        case "s":
            return "0 s" if value == 0 else _scaled(value, _SECONDS)
        case "bytes":
            return _scaled(value, _BYTES)
        case "percentunit":
            return f"{_digits(value * 100)}%"
        case _ if unit.startswith("suffix:"):
            return f"{_digits(value)}{unit.removeprefix('suffix:')}"
        case _ if unit in _PER_SECOND:
            return f"{_scaled(value, _COUNTS)} {_PER_SECOND[unit]}"
    raise ValueError(f"the unit {unit} is not known here")


def _scaled(value: float, multiples: Sequence[tuple[float, str]]) -> str:
    factor, name = next(((each, name) for each, name in reversed(multiples) if abs(value) >= each), multiples[0])
    return f"{_digits(value / factor)}{name}"


def _digits(value: float) -> str:
    """Return three significant digits, without trailing zeros after the point."""
    if value == 0:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{min(places, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
