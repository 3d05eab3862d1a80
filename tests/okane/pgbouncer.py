"""A real PgBouncer in front of the tests' Postgres, in each of its modes. CI installs Debian's; elsewhere what needs it is
skipped, and says so."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from okane.local.ports import free_port

MODES = ("session", "transaction", "statement")
_CONFIG = """\
[databases]
* = host=127.0.0.1 port={postgres_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = plain
auth_file = {folder}/users.txt
pool_mode = {mode}
default_pool_size = {size}
"""


def program() -> str:
    """Return the path of PgBouncer. Skips the test if it is not installed."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip("pgbouncer is not installed: apt-get install pgbouncer")
    return found


class Pooler:
    """One PgBouncer in front of a database: `.url .kill() .start()`."""

    def __init__(self, folder: Path, database_url: str, mode: str, *, size: int, more: str) -> None:
        parts = urlsplit(database_url)
        port = free_port()
        self.url = parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}").geturl()
        self._log = folder / "log"
        self._command = [program()]
        users, config = folder / "users.txt", folder / "pgbouncer.ini"
        users.write_text(f'"{parts.username}" "{parts.password}"\n')
        config.write_text(
            _CONFIG.format(postgres_port=parts.port, port=port, folder=folder, mode=mode, size=size) + more
        )
        if os.geteuid() == 0:  # which it refuses to run as
            account = pwd.getpwnam("nobody")
            for path in (folder, users, config):
                os.chown(path, account.pw_uid, account.pw_gid)
            self._command += ["-u", "nobody"]
        self._command.append(str(config))

    def start(self) -> None:
        """Start it, and wait until it lends a session."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        _wait_for(self.url, self._process, self._log)

    def kill(self) -> None:
        """kill -9: all sessions end, those at the server once it notices."""
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def running_pooler(database_url: str, mode: str, *, size: int = 40, more: str = "") -> Iterator[Pooler]:
    """Run one inside the block, with so many connections to the server, and these additional lines of its settings."""
    with tempfile.TemporaryDirectory(prefix="okane-pgbouncer-") as folder:
        one = Pooler(Path(folder), database_url, mode, size=size, more=more)
        try:
            one.start()
            yield one
        finally:
            one.kill()


@contextlib.contextmanager
def pooling(database_url: str, mode: str) -> Iterator[str]:
    """Run one inside the block; yield the URL of the same database through it."""
    with running_pooler(database_url, mode) as one:
        yield one.url


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(url, connect_timeout=5).close()
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
