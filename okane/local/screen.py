"""The output of `okane up`: one line for each event, warnings of the children, and the block with the addresses.

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
# Fields that the line repeats or a terminal does not need; the log file has all of them.
_HIDDEN = frozenset({"event", "level", "timestamp", "logger", "process", "pid"})


class Screen:
    """Writes to the terminal, or to stdout where that is a file or a pipe."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)

    def print_event(self, text: str) -> None:
        """Print one event."""
        self.console.print(escape(text))

    def print_error(self, text: str) -> None:
        """Print the reason why `up` ends."""
        self.console.print(f"[bold red]okane:[/] {escape(text)}")

    def quote(self, name: str, level: str, text: str) -> None:
        """Print a line from a child's log."""
        style = _LOUD.get(level, "default")
        self.console.print(f"[dim]{escape(name)}[/] [{style}]{level}[/] {escape(text)}")

    def block(self, title: str, rows: Sequence[tuple[str, str]], command: str) -> None:
        """Print the addresses, and a command to paste (alone on its line, so that it can be copied whole)."""
        self.console.print(f"\n[bold green]{escape(title)}[/]\n")
        for label, text in rows:
            self.console.print(f"  [bold]{label:<10}[/] {escape(text)}")
        self.console.print(f"\n{escape(command)}\n")


def summary(
    where: Endpoints, *, data: Path, logs: Path, pids: Mapping[str, int], kept_key: Path
) -> tuple[list[tuple[str, str]], str]:
    """Return the rows and the command of the block that `up` prints.

    They hold no passwords, because terminals are shared and recorded. A test key is shown; of a live key, only its file.
    """
    workers = {name: pid for name, pid in pids.items() if name.startswith("worker-")}
    mock = "  (a mock; its charges are in provider.jsonl)" if "provider" in pids else ""
    if "stripe" in pids:
        mock = "  (Stripe World, a simulator; its PaymentIntents are at /v1/payment_intents)"
    rows = [
        ("API", where.api_url),
        (
            "Provider",
            shown(where.provider_base_url) + mock if where.provider_base_url else "as in OKANE_PROVIDERS_FILE",
        ),
        ("Postgres", shown(where.database_url)),
        ("Redis", shown(where.redis_url)),
        ("Metrics", "  ".join(f"{name} {url}" for name, url in where.metrics_urls.items())),
        ("Workers", ", ".join(f"{name} (pid {pid})" for name, pid in workers.items())),
        *(
            ("Dispatcher", f"pid {pid}  (sends webhooks)")
            for name, pid in pids.items()
            if name.startswith("dispatcher")
        ),
        ("Data", f"{data}  (logs in {logs.name}/, addresses with passwords in endpoints.json)"),
    ]
    key = where.api_key if where.api_key is None or where.api_key.startswith("sk_test_") else f"$(cat {kept_key})"
    access = [("API key", "none: every client that reaches this port can pay (--no-keys)" if key is None else key)]
    if where.console_url is not None:
        access.append(("Console", where.console_url + ("" if key is None else "  (log in with the API key)")))
    rows[1:1] = access
    if workers:
        rows.append(("Try", f"kill -9 {next(iter(workers.values()))}  and watch its payments settle"))
    method = "" if where.payment_method is None else f', "payment_method": "{where.payment_method}"'
    body = f"""'{{"amount": 440, "idempotency_key": "demo-key-1"{method}}}'"""
    header = "" if key is None else f' -H "Authorization: Bearer {key}"'
    return rows, f"curl -i {where.api_url}/v1/payments{header} -H 'Content-Type: application/json' -d {body}"


@dataclass(slots=True)
class LogTail:
    """Follows one child's log: its new lines at warning and above, and lines that are not log lines (a traceback, a message
    of the interpreter)."""

    name: str
    path: Path
    _file: BinaryIO | None = None
    _rest: bytes = b""

    def skip(self) -> None:
        """Move to the end: the lines up to now are of an earlier run."""
        if self.path.exists():
            self._file = self.path.open("rb")
            self._file.seek(0, 2)

    def read(self) -> Iterator[tuple[str, str]]:
        """Yield new lines as (level, text): a few, and then the number of the others."""
        if not self.path.exists():
            return
        if self._file is None or os.fstat(self._file.fileno()).st_ino != self.path.stat().st_ino:
            self.close()  # a restart rotated the log
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
    """Return the last line: that of a traceback is its message."""
    return (str(value).strip().splitlines() or [""])[-1]
