"""The embedded Postgres: one server with its data in one folder, on loopback, with a password.

Promises: acknowledged writes are on disk (fsync stays on); a folder holds a whole cluster or none, even if the set-up was
killed; under root it runs as another user, without opening any folder above the data to that user.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from okane.local.ownership import close_to_others, hand_over, postgres_account, user_name
from okane.local.postgres_binaries import MAJOR, find_programs
from okane.local.processes import Account, Child, Stage, server_environment, spawn
from okane.local.server import LocalError, Server, StartError

USER = "okane"
DATABASE = "okane"
_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    # A socket file would need a folder that both users may enter, and its path may be too long.
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# Fast shutdown ends sessions and writes a checkpoint; after an immediate one the next start recovers.
_STAGES = (Stage(signal.SIGINT, 20), Stage(signal.SIGQUIT, 7))


class PostgresServer(Server):
    """One server. Its cluster is `folder`/cluster; `settings` override ours; `durable=False` is for tests only.

    Under root it runs as a user of its own (see `ownership`), which becomes the owner of an existing cluster.
    """

    def __init__(
        self,
        *,
        folder: Path,
        log: Path,
        port: int,
        settings: Mapping[str, str] | None = None,
        durable: bool = True,
        report: Callable[[str], None] = lambda _line: None,
        name: str = "postgres",
    ) -> None:
        super().__init__()
        self.name = name
        # Not resolved: a folder may be named through another process's view of the file system (/proc/PID/root).
        self._folder = folder.absolute()
        self._cluster = self._folder / "cluster"
        self._log = log
        self._port = port
        self._settings = {**_SETTINGS, **({} if durable else {"fsync": "off", "full_page_writes": "off"})}
        self._settings.update({"port": str(port), **(settings or {})})
        self._durable = durable
        self._report = report
        self._account: Account | None = None  # None: ourselves
        self._programs: Path | None = None

    @property
    def url(self) -> str:
        """Return the address with its password; `prepare` must have run."""
        return self.database_url(DATABASE)

    def database_url(self, database: str) -> str:
        """Return the address of another database on this server."""
        password = (self._folder / "password").read_text()
        return f"postgresql://{USER}:{password}@127.0.0.1:{self._port}/{database}"

    def prepare(self) -> None:
        """Create the cluster if there is none (about a second). Raises LocalError."""
        for folder in (self._folder, self._log.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for draft in self._folder.glob("draft-*"):  # of a set-up that was killed
            shutil.rmtree(draft)
        if os.geteuid() == 0:  # Postgres refuses to run as root
            self._account = postgres_account(self._report)
        self._programs = find_programs(self._account)
        if not self._cluster.exists():
            self._create_cluster()
        self._take_cluster()
        version = (self._cluster / "PG_VERSION").read_text().strip()
        if version != str(MAJOR):
            raise LocalError(
                f"{self._cluster} was made by Postgres {version}, this is {MAJOR}: give another --data folder"
            )
        _forget_reused_pid(self._cluster / "postmaster.pid")

    def _spawn(self) -> Child:
        assert self._programs is not None, "prepare comes first"
        account = self._account
        options = [f"--{name}={value}" for name, value in self._settings.items()]
        with _path_for(self._cluster, account) as (path, fds):
            return spawn(
                name=self.name,
                command=[self._programs / "postgres", "-D", path, *options],
                log=self._log,
                stages=_STAGES,
                env=server_environment(),
                account=account,
                pass_fds=fds,
            )

    def ready(self) -> bool:
        """Return True once the database accepts connections. Creates it on the first start."""
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError as error:
            if f'database "{DATABASE}" does not exist' in str(error):
                self._create_database()
            if "SSL" in str(error):
                raise LocalError(
                    "PGSSLMODE requires TLS, which the embedded Postgres does not support: unset it, or set DATABASE_URL"
                ) from error
            return False
        return True

    def _create_database(self) -> None:
        with psycopg.connect(self.database_url("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))

    def _take_cluster(self) -> None:
        """Make the user that Postgres runs as the owner of the cluster: Postgres refuses any other."""
        owner = self._cluster.lstat().st_uid
        if owner == (os.geteuid() if self._account is None else self._account.uid):
            return
        if self._account is None:
            raise LocalError(
                f"{self._cluster} belongs to another user: run as that user, or give another --data folder"
            )
        # Created by an earlier version, or where this user had another number. Only root can have put it here.
        close_to_others(self._folder, self._report)
        hand_over(self._cluster, self._account)
        self._report(f"gave {self._cluster} to {user_name(self._account.uid)}, which Postgres runs as")

    def _create_cluster(self) -> None:
        assert self._programs is not None, "find_programs comes first"
        account = self._account
        draft = Path(tempfile.mkdtemp(dir=self._folder, prefix="draft-"))
        log = self._log.with_name("initdb.log")
        password = secrets.token_hex(16)
        with tempfile.NamedTemporaryFile("w", dir=self._folder, prefix="password-") as file:
            file.write(password)
            file.flush()
            if account is not None:
                os.chown(draft, account.uid, account.gid)
                os.chown(file.name, account.uid, account.gid)
            with _path_for(draft, account) as (path, fds), _path_for(Path(file.name), account) as (secret, more_fds):
                options = [f"--username={USER}", "--auth=scram-sha-256", f"--pwfile={secret}", "--encoding=UTF8"]
                options += ["--locale=C", "--no-instructions", *([] if self._durable else ["--no-sync"])]
                child = spawn(
                    name="initdb",
                    command=[self._programs / "initdb", "-D", path, *options],
                    log=log,
                    stages=(Stage(signal.SIGTERM, 5),),
                    env=server_environment(),
                    account=account,
                    pass_fds=(*fds, *more_fds),
                )
                if (code := child.wait()) != 0:
                    raise StartError(f"initdb exited with {code}.\n{child.last_lines()}")
        # The password first: a cluster without it could never be opened.
        with os.fdopen(os.open(self._folder / "password", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as kept:
            kept.write(password)
            kept.flush()
            os.fsync(kept.fileno())
        draft.replace(self._cluster)
        log.unlink()


@contextlib.contextmanager
def _path_for(path: Path, account: Account | None) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield a name for `path` that a child running as `account` can open, with the descriptors the child must inherit.

    The folders above may be closed to that user (a home is 0700), but a descriptor that root opened leads there: Postgres
    opens everything relative to its data folder, also when it restarts itself after a crash.
    """
    if account is None:
        yield str(path), ()
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{descriptor}", (descriptor,)
    finally:
        os.close(descriptor)


def _forget_reused_pid(lock: Path) -> None:
    """Remove Postgres's pid file if its pid now belongs to another program, as happens when a container restarts.

    Postgres checks only that a process of that pid exists, and then refuses to start. A dead pid is left to Postgres, which
    also looks for orphaned sessions.
    """
    try:
        lines = lock.read_text().splitlines()
        pid, started_at_s = int(lines[0]), int(lines[2])
        born_at_s = psutil.Process(pid).create_time()
    except (FileNotFoundError, ValueError, IndexError, psutil.NoSuchProcess):
        return
    if abs(born_at_s - started_at_s) > 60:
        lock.unlink()
