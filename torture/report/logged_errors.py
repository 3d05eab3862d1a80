"""The lines that processes logged at error: under faults warnings are normal, an error is unexpected."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

_ERROR = ('"level": "error"', '"level": "critical"')
_ORDERED = "failpoint "  # what a failpoint raises says so
_CHANGING = re.compile(r"0x[0-9a-f]+|\b[0-9a-f-]{32,36}\b|\d+")
_LONGEST = 200


def logged_errors(logs: Path) -> Mapping[str, int]:
    """Lines at error, like ones counted together; a traceback counts by its last line."""
    return Counter(said for path in logs.glob("*.log*") for said in _errors(path))


def _errors(path: Path) -> Iterator[str]:
    process = path.name.partition(".")[0].partition("-")[0]
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if _ORDERED in line:
                continue
            if any(mark in line for mark in _ERROR):
                yield f"{process}: {_summary(line)}"
            elif line.startswith(("ExceptionGroup", "Traceback", "  + Exception Group Traceback")):
                yield f"{process}: died of an exception, see {path.name}"


def _summary(line: str) -> str:
    try:
        entry = json.loads(line)
    except ValueError:
        return "a line that cannot be read"
    last = (str(entry.get("exception") or entry.get("reason") or "").strip().splitlines() or [""])[-1]
    return _CHANGING.sub("#", f"{entry.get('event')} {last}".strip())[:_LONGEST]
