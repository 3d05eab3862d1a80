"""A receiver of webhooks that costs little: `python -m bench.receiver --port N` answers 204 and keeps a journal in memory.

A request to a path that ends with `/silent` is never answered. `GET /journal` returns the requests, `GET /count` their
number, and `DELETE /journal` begins a new one. It verifies nothing: signatures are the business of tests.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from datetime import datetime
from urllib.request import Request, urlopen

import uvloop

from bench.plain_http import PlainConnection, header, json_response, serve

_ID = b"webhook-id"
_TIMESTAMP = b'"timestamp":"'
_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request: its path and id, when the change was made, and when its request arrived, in seconds since 1970."""

    path: str
    id: str
    changed_s: float
    arrived_s: float

    @property
    def age_ms(self) -> float:
        return (self.arrived_s - self.changed_s) * 1000


class Journal:
    """The requests as they arrived, unparsed."""

    def __init__(self) -> None:
        self.entries: list[tuple[bytes, bytes, bytes, float]] = []

    def add(self, path: bytes, head: bytes, body: bytes) -> None:
        at = body.find(_TIMESTAMP) + len(_TIMESTAMP)
        self.entries.append((path, header(head, _ID), body[at : body.find(b'"', at)], time.time()))

    def as_json(self) -> bytes:
        return json.dumps(
            [
                [path.decode(), id_.decode(), datetime.fromisoformat(changed.decode()).timestamp(), arrived_s]
                for path, id_, changed, arrived_s in self.entries
            ]
        ).encode()


class Connection(PlainConnection):
    """One connection of a client."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal

    def handle(self, head: bytes, body: bytes) -> None:
        method, path, _ = head.split(b" ", 2)
        if method == b"POST":
            self._journal.add(path, head, body)
            if not path.endswith(b"/silent"):
                self.write(_ANSWER)
        elif method == b"DELETE":
            self._journal.entries.clear()
            self.write(_ANSWER)
        elif path == b"/journal":
            self.write(json_response(self._journal.as_json()))
        else:
            self.write(json_response(b"%d" % len(self._journal.entries)))


def count(url: str) -> int:
    """Return the number of requests that the receiver at `url` has in its journal."""
    return int(_fetch(f"{url}/count"))


def arrivals(url: str) -> list[Arrival]:
    """Return the journal of the receiver at `url`."""
    return [Arrival(*entry) for entry in json.loads(_fetch(f"{url}/journal"))]


def clear(url: str) -> None:
    """Begin a new journal."""
    _fetch(f"{url}/journal", method="DELETE")


def _fetch(url: str, *, method: str = "GET") -> bytes:
    with urlopen(Request(url, method=method), timeout=60) as answer:  # noqa: S310 - a process of ours, on loopback
        body: bytes = answer.read()
        return body


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    journal, port = Journal(), parser.parse_args().port
    uvloop.run(serve(lambda: Connection(journal), port))


if __name__ == "__main__":
    main()
