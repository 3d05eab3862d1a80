"""What `okane up` shows: one line for each event, warnings of the children, and the block with the addresses.

Plain text when it is not a terminal. A child that floods its log does not flood the terminal.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.markup import escape

from okane.addresses import shown
from okane.local.data_folder import Endpoints

_LOUD = {"warning": "yellow", "error": "red", "critical": "bold red"}
_SHOWN_PER_READ = 5
_READ_BYTES = 1024 * 1024
# What a line about an event repeats or nobody reads on a terminal; the log file has it all.
_HIDDEN = frozenset({"event", "level", "timestamp", "logger", "process", "pid"})


class Screen:
    """The terminal, or whatever stdout is."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """One event, or a text of ours."""
        self.console.print(escape(text))

    def complain(self, text: str) -> None:
        """Why `up` ends."""
        self.console.print(f"[bold red]okane:[/] {escape(text)}")

    def quote(self, name: str, level: str, text: str) -> None:
        """A line from a child's log."""
        style = _LOUD.get(level, "default")
        self.console.print(f"[dim]{escape(name)}[/] [{style}]{level}[/] {escape(text)}")

    def block(self, title: str, rows: Sequence[tuple[str, str]], command: str) -> None:
        """The addresses, and a command to paste (alone on its line, so that it can be copied whole)."""
        self.console.print(f"\n[bold green]{escape(title)}[/]\n")
        for label, text in rows:
            self.console.print(f"  [bold]{label:<10}[/] {escape(text)}")
        self.console.print(f"\n{escape(command)}\n")


def summary(
    where: Endpoints, *, data: Path, logs: Path, pids: Mapping[str, int], kept_key: Path
) -> tuple[list[tuple[str, str]], str]:
    """The rows and the command of the block that `up` shows. No passwords: terminals are shared and recorded. A key for
    play money is shown all the same; of one for somebody's money, only where it is kept."""
    workers = {name: pid for name, pid in pids.items() if name.startswith("worker-")}
    mock = "  (a mock; it keeps what it charged in provider.jsonl)" if "provider" in pids else ""
    rows = [
        ("API", where.api_url),
        ("Provider", shown(where.provider_base_url) + mock),
        ("Postgres", shown(where.database_url)),
        ("Redis", shown(where.redis_url)),
        ("Metrics", "  ".join(f"{name} {url}" for name, url in where.metrics_urls.items())),
        ("Workers", ", ".join(f"{name} (pid {pid})" for name, pid in workers.items())),
        ("Data", f"{data}  (logs in {logs.name}/, addresses with passwords in endpoints.json)"),
    ]
    key = where.api_key if where.api_key is None or where.api_key.startswith("sk_test_") else f"$(cat {kept_key})"
    rows.insert(1, ("API key", "none: whoever reaches this port may pay (--no-keys)" if key is None else key))
    if workers:
        rows.append(("Try", f"kill -9 {next(iter(workers.values()))}  and watch its payments settle all the same"))
    body = """'{"amount": 440, "idempotency_key": "demo-key-1"}'"""
    header = "" if key is None else f' -H "Authorization: Bearer {key}"'
    return rows, f"curl -i {where.api_url}/v1/payments{header} -H 'Content-Type: application/json' -d {body}"


@dataclass(slots=True)
class LogTail:
    """Follows one child's log and answers its new lines at warning and above, and those that are no log line at all
    (a traceback, a message of the interpreter)."""

    name: str
    path: Path
    _file: BinaryIO | None = None
    _rest: bytes = b""

    def skip(self) -> None:
        """What is there now is old."""
        if self.path.exists():
            self._file = self.path.open("rb")
            self._file.seek(0, 2)

    def read(self) -> Iterator[tuple[str, str]]:
        """New lines as (level, text): a few, and then how many more there were."""
        if not self.path.exists():
            return
        if self._file is None or os.fstat(self._file.fileno()).st_ino != self.path.stat().st_ino:
            self.close()  # a new start put a grown log aside
            self._file = self.path.open("rb")
        *lines, self._rest = (self._rest + self._file.read(_READ_BYTES)).split(b"\n")
        loud = list(_loud(lines))
        yield from loud[:_SHOWN_PER_READ]
        if len(loud) > _SHOWN_PER_READ:
            yield "warning", f"... and {len(loud) - _SHOWN_PER_READ} more lines in {self.path}"

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _loud(lines: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    for line in lines:
        text = line.decode(errors="replace").rstrip()
        try:
            entry = json.loads(text)
        except ValueError:
            if text:
                yield "error", text
            continue
        if isinstance(entry, dict) and entry.get("level") in _LOUD:
            details = " ".join(f"{key}={_last_line(value)}" for key, value in entry.items() if key not in _HIDDEN)
            yield entry["level"], f"{entry.get('event', '')} {details}".strip()


def _last_line(value: object) -> str:
    """Of a traceback, what it says; of anything else, itself."""
    return (str(value).strip().splitlines() or [""])[-1]
