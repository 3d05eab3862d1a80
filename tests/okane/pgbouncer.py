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
default_pool_size = 40
"""


def program() -> str:
    """Return the path of PgBouncer. Skips the test if it is not installed."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip("pgbouncer is not installed: apt-get install pgbouncer")
    return found


@contextlib.contextmanager
def pooling(database_url: str, mode: str) -> Iterator[str]:
    """Run one inside the block; yield the URL of the same database through it."""
    command = program()
    parts = urlsplit(database_url)
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="okane-pgbouncer-") as name:
        folder = Path(name)
        (folder / "users.txt").write_text(f'"{parts.username}" "{parts.password}"\n')
        config = folder / "pgbouncer.ini"
        config.write_text(_CONFIG.format(postgres_port=parts.port, port=port, folder=folder, mode=mode))
        as_other = []
        if os.geteuid() == 0:  # which it refuses to run as
            account = pwd.getpwnam("nobody")
            for path in (folder, folder / "users.txt", config):
                os.chown(path, account.pw_uid, account.pw_gid)
            as_other = ["-u", "nobody"]
        url = parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}").geturl()
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([command, *as_other, str(config)], stdout=log, stderr=log)
        try:
            _wait_for(url, process, folder / "log")
            yield url
        finally:
            process.kill()
            process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(url, connect_timeout=5).close()
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
