"""A small disk of its own for a server, so that filling it up fills nothing else.

A tmpfs in a mount namespace that a child process holds: no other process sees it, and it is gone with the child, also when we
are killed by -9. Its files are reached through the child's view of the file system, /proc/PID/root.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from okane.local.processes import Child, Stage, spawn
from okane.local.server import StartError

_MOUNT = 'mount -t tmpfs -o size="$1",mode=0755 tmpfs "$2" && echo mounted && exec sleep infinity'
_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 10.0
_COPY_TIMEOUT_S = 300.0


class SmallDisk:
    """A disk of `size_mb` megabytes that no other process sees."""

    def __init__(self, *, name: str, folder: Path, size_mb: int, log: Path) -> None:
        self._name = name
        self._folder = folder.absolute()
        self._size_mb = size_mb
        self._log = log
        self._holder: Child | None = None

    @property
    def path(self) -> Path:
        """The path of its files; known once it is mounted."""
        assert self._holder is not None, "mount comes first"
        return Path(f"/proc/{self._holder.pid}/root{self._folder}")

    def mount(self) -> Child:
        """Make it. The calling thread must outlive it (see `processes.spawn`). Raises StartError."""
        self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._holder = holder = spawn(
            name=f"{self._name}-disk",
            command=[*_unshare(), "sh", "-c", _MOUNT, "sh", f"{self._size_mb}m", str(self._folder)],
            log=self._log,
            stages=(Stage(signal.SIGTERM, 2),),
        )
        deadline = time.monotonic() + _TIMEOUT_S
        while "mounted" not in holder.last_lines():
            if holder.exit_code() is not None or time.monotonic() > deadline:
                raise StartError(f"no small disk could be made.\n{holder.last_lines()}")
            time.sleep(0.02)
        return holder

    def fill(self) -> None:
        """Leave no byte free. Blocks for as long as the memory takes to be written."""
        with self._ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(_CHUNK_BYTES))

    def free(self) -> None:
        """Take away what `fill` put there."""
        self._ballast.unlink(missing_ok=True)

    def rescue(self, target: Path) -> None:
        """Copy what is on it to a place that stays, owners and modes as they are."""
        self.free()
        target.mkdir(parents=True, exist_ok=True)
        command = [shutil.which("cp") or "/bin/cp", "-a", f"{self.path}/.", str(target)]
        subprocess.run(command, check=True, timeout=_COPY_TIMEOUT_S)  # noqa: S603 - our own files

    def unmount(self) -> None:
        if self._holder is not None:
            self._holder.stop()

    @property
    def _ballast(self) -> Path:
        return self.path / "ballast"


def why_impossible() -> str | None:
    """Why this machine gives us no disk of our own, None if it does."""
    if os.geteuid() != 0:
        return "only root may mount a small disk"
    missing = [tool for tool in ("unshare", "mount", "sleep") if shutil.which(tool) is None]
    if missing:
        return f"a small disk needs {', '.join(missing)}"
    try:
        command = [*_unshare(), "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /tmp"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)  # noqa: S603 - a program of the system
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"a small disk cannot be mounted: {error}"
    return f"a small disk cannot be mounted: {done.stderr.strip()}" if done.returncode else None


def _unshare() -> list[str]:
    return [shutil.which("unshare") or "/usr/bin/unshare", "--mount", "--propagation", "private"]
