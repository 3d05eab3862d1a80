"""The folder that holds all data of `okane up`, its lock, and the addresses of the running processes.

Promises: one supervisor at a time (a lock that ends with its process); readable by its owner only; processes that an
earlier supervisor left running are ended before new ones start.

    lock  children.json  endpoints.json     the running processes (see Roster, Endpoints)
    api-key                                 the secret of a key for the API (see first_key)
    webhook-master                          the master of the webhooks' secrets (see kept_secrets)
    console-secret                          signs the sessions of the console (see kept_secrets)
    postgres/  redis/  provider.jsonl       data
    stripe/                                 providers file and secrets of `--stripe` (see stripe_simulator)
    logs/NAME.log                           output of every child
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from okane.local.ownership import close_to_others
from okane.local.processes import Roster, end_leftover
from okane.local.server import LocalError


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """The addresses of a running `okane up`. They hold passwords: only the owner can read the file.

    `provider_base_url` is empty where a providers file names the gateways. `api_key` is None where the API takes requests
    without one. `payment_method` is a test card, where one is needed to pay.
    """

    database_url: str
    redis_url: str
    provider_base_url: str
    api_url: str
    metrics_urls: Mapping[str, str]
    api_key: str | None = None
    payment_method: str | None = None
    console_url: str | None = None
    providers_file: str | None = None


@dataclass(frozen=True, slots=True)
class DataFolder:
    """The paths in a data folder."""

    path: Path

    @property
    def postgres(self) -> Path:
        return self.path / "postgres"

    @property
    def redis(self) -> Path:
        return self.path / "redis"

    @property
    def journal(self) -> Path:
        """The journal of the mock provider."""
        return self.path / "provider.jsonl"

    @property
    def stripe(self) -> Path:
        return self.path / "stripe"

    @property
    def api_key(self) -> Path:
        return self.path / "api-key"

    @property
    def webhook_master(self) -> Path:
        return self.path / "webhook-master"

    @property
    def console_secret(self) -> Path:
        return self.path / "console-secret"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    @property
    def roster(self) -> Roster:
        return Roster(self.path / "children.json")

    @property
    def _endpoints(self) -> Path:
        return self.path / "endpoints.json"

    def publish(self, endpoints: Endpoints) -> None:
        """Write the addresses for other commands."""
        draft = self._endpoints.with_suffix(".new")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(asdict(endpoints), file, indent=1)
        draft.replace(self._endpoints)

    def withdraw(self) -> None:
        """Remove the addresses: nothing runs here any more."""
        self._endpoints.unlink(missing_ok=True)

    def endpoints(self) -> Endpoints | None:
        """Return the addresses, or None if nothing runs here (or it is still starting)."""
        if _holder(self.path / "lock") is None:
            return None
        try:
            return Endpoints(**json.loads(self._endpoints.read_text()))
        except (FileNotFoundError, PermissionError, ValueError, TypeError):
            return None


def default_path() -> Path:
    """Return `.okane` beside `run.py` in a checkout, else in the current folder."""
    checkout = Path(__file__).resolve().parents[2]
    return (checkout if (checkout / "run.py").exists() else Path.cwd()) / ".okane"


@contextlib.contextmanager
def lock_data_folder(path: Path, *, report: Callable[[str], None]) -> Iterator[DataFolder]:
    """Own the folder (created if missing) inside the block, after ending the processes that an earlier owner left running.

    Raises LocalError when another process owns it, when it cannot be written, or when others could (see `ownership`).
    """
    try:
        folder = DataFolder(path.resolve())
        folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        close_to_others(folder.path, report)
        folder.logs.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(folder.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except (OSError, RuntimeError) as error:  # RuntimeError: a circular link, before Python 3.13
        raise LocalError(
            f"cannot write the data folder {path}: {getattr(error, 'strerror', None) or error}. Give another one with --data"
        ) from error
    try:
        if not _lock(lock):
            holder = os.read(lock, 20).decode().strip() or "just starting"
            raise LocalError(
                f"okane is already up in {path} (pid {holder}): stop that one, or give another folder with --data"
            )
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        _end_leftovers(folder.roster, report)
        folder.withdraw()
        yield folder
    finally:
        os.close(lock)


def _lock(descriptor: int) -> bool:
    # Another command that looks for the owner (see `_holder`) holds the lock for an instant.
    for _ in range(10):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.02)
    return False


def _end_leftovers(roster: Roster, report: Callable[[str], None]) -> None:
    # In reverse order of starting: the workers before the servers that they use.
    for record in reversed(roster.load()):
        if end_leftover(record):
            report(f"ended {record.name} (pid {record.pid}), left running by an earlier okane that was killed")
    roster.clear()


def _holder(lock: Path) -> int | None:
    """Return the pid that owns the folder, or None."""
    try:
        with lock.open() as file:
            try:
                # Shared: two commands that look at once do not take each other for the owner.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0)
    except (OSError, ValueError):
        return None
    return None
