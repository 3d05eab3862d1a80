"""The journal of the receiver: a JSON line for each of its lives, and two for each request, at its arrival and at its end.

Promise: what an answer tells is in the journal before it is sent. A request without a second line was in hand when the
receiver died.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One request. Times are seconds since the epoch; `began_s` is that of its first byte.

    `ended_s` is when the answer was sent or the sender hung up, or when the receiver was back if it died first: until then
    no other request could come. It is infinite for what was in hand at the end. `status` is the answer whose head was sent
    whole, 0 if there was none.
    """

    path: str
    headers: Mapping[str, str]  # the names in lower case
    body: str
    began_s: float
    ended_s: float
    status: int

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300


class ReceiverJournal:
    """Writes the lines. `life` makes the numbers of one life, which begins at `born_s`, differ from those of another."""

    def __init__(self, path: Path, *, life: str, born_s: float) -> None:
        self._file = path.open("ab", buffering=0)
        self._life = life
        self._count = 0
        if self._file.tell():
            self._file.write(b"\n")  # ends a line that a kill has torn
        self._write({"life": life, "at_s": born_s})

    def begin(self, *, path: str, headers: Mapping[str, str], body: str, began_s: float) -> str:
        """Write the arrival of a request; return its number."""
        self._count += 1
        number = f"{self._life}-{self._count}"
        self._write({"request": number, "path": path, "headers": dict(headers), "body": body, "began_s": began_s})
        return number

    def end(self, number: str, *, status: int, at_s: float) -> None:
        """Write the end of a request."""
        self._write({"end_of": number, "status": status, "at_s": at_s})

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line).encode() + b"\n")


def read_arrivals(path: Path) -> Iterator[Arrival]:
    """Yield all requests, in the order of their ends; those that never ended come last. A torn line is left out."""
    begun: dict[str, Mapping[str, Any]] = {}
    for line in _lines(path):
        if "request" in line:
            begun[line["request"]] = line
        elif "life" in line:
            yield from (_arrival(request, status=0, ended_s=line["at_s"]) for request in begun.values())
            begun.clear()
        else:
            request = begun.pop(line["end_of"])
            yield _arrival(request, status=line["status"], ended_s=line["at_s"])
    for request in begun.values():
        yield _arrival(request, status=0, ended_s=float("inf"))


def _arrival(line: Mapping[str, Any], *, status: int, ended_s: float) -> Arrival:
    return Arrival(
        path=line["path"],
        headers=line["headers"],
        body=line["body"],
        began_s=line["began_s"],
        ended_s=ended_s,
        status=status,
    )


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    if not path.exists():
        return
    with path.open("rb") as lines:
        for line in lines:
            try:
                yield json.loads(line)
            except ValueError:
                continue
