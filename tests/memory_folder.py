"""The folder of the tests' Postgres servers: in memory where the machine has room for it.

Each test copies a database of 560 files: on ext4 that takes several times as long as in memory, and two thousand tests do it.
A test that kills a server loses nothing by it: the page cache survives a killed process, as memory does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_MEMORY = Path("/dev/shm")
_ENOUGH_BYTES = 4 * 2**30  # each pytest process needs some 200 MB


@contextlib.contextmanager
def folder_in_memory() -> Iterator[Path | None]:
    """Yield an empty folder that is deleted after the block; None where memory cannot be used.

    The folder of a pytest that was killed is deleted by the next one: its lock is free then.
    """
    root = _own_root()
    if root is None:
        yield None
        return
    with _locked(root):
        _delete_abandoned(root)
        folder = Path(tempfile.mkdtemp(dir=root))
        held = os.open(folder, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        os.close(held)


def _own_root() -> Path | None:
    """Return the folder of this user in memory, or None if there is no room, or it belongs to another user."""
    root = _MEMORY / f"okane-tests-{os.geteuid()}"
    try:
        if shutil.disk_usage(_MEMORY).free < _ENOUGH_BYTES:
            return None
        root.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return None
    return root if not root.is_symlink() and root.stat().st_uid == os.geteuid() else None


def _delete_abandoned(root: Path) -> None:
    for folder in root.iterdir():
        with contextlib.suppress(BlockingIOError, FileNotFoundError), _locked(folder, fcntl.LOCK_NB):
            shutil.rmtree(folder, ignore_errors=True)  # its servers may be ending still: the next run deletes the rest


@contextlib.contextmanager
def _locked(folder: Path, flags: int = 0) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | flags)
        yield
    finally:
        os.close(descriptor)
