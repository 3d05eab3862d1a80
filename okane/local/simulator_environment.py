"""The virtual environment of a gateway simulator: made once in the user's cache folder, with pinned packages.

Promise: a folder with a stamp is complete; one set-up at a time, and one that was interrupted begins again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from okane.local.other_python import find_python
from okane.local.server import LocalError

_STAMP = "okane-complete"
_SHOWN_LINES = 15
# Without dependencies: the file names them all. The Python that a simulator asks for may be newer than it needs.
_PIP = (
    "--quiet",
    "--disable-pip-version-check",
    "--no-input",
    "--no-deps",
    "--require-hashes",
    "--ignore-requires-python",
)
# These are meant for other installations: here they would make pip install outside the virtual environment.
_NOT_OURS = frozenset({"PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PYTHONPATH", "PYTHONHOME"})


class NoPythonError(LocalError):
    """This machine has no Python on which the simulator runs; the message says which ones would do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorPackages:
    """The packages of a simulator: `requirements` pins them with hashes, `versions` are the Pythons that it runs on.

    `edit` is a script that the new environment's Python runs once, after the installation; `edit_files` are its inputs.
    """

    name: str
    versions: tuple[str, ...]
    requirements: Path
    edit: Path | None = None
    edit_files: tuple[Path, ...] = ()

    @property
    def _fingerprint(self) -> str:
        files = [self.requirements, *([] if self.edit is None else [self.edit]), *self.edit_files]
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]

    def prepare(self, report: Callable[[str], None] = lambda _line: None, *, cache: Path | None = None) -> Path:
        """Return the Python of the environment, which is made first if it is missing (10 to 60 s).

        Raises NoPythonError, and LocalError when the cache cannot be written or pip fails.
        """
        cache = cache or default_cache()
        with _lock(cache, self.name):
            for version in self.versions:
                python = self._folder(cache, version) / "bin" / "python"
                if (python.parents[1] / _STAMP).exists() and python.exists():
                    return python
            source = find_python(self.versions)
            if source is None:
                raise NoPythonError(
                    f"{self.name} needs Python {' or '.join(self.versions)}, and this machine has none that can make "
                    "virtual environments: not on the PATH, not among pyenv's versions, not known to uv. "
                    f"Install one, for example with `uv python install {self.versions[0]}` or "
                    f"`pyenv install {self.versions[0]}`"
                )
            return self._make(cache, source, report)

    def _folder(self, cache: Path, version: str) -> Path:
        return cache / f"{self.name}-{self._fingerprint}-{version}"

    def _make(self, cache: Path, source: Path, report: Callable[[str], None]) -> Path:
        version = _run([str(source), "-I", "-c", "import sys; print('{}.{}'.format(*sys.version_info[:2]))"]).strip()
        folder = self._folder(cache, version)
        count = sum("==" in line for line in self.requirements.read_text().splitlines())
        report(f"setting up {self.name} (once): {count} packages for Python {version}, into {folder}")
        if folder.exists():  # the remains of a set-up that was interrupted
            shutil.rmtree(folder)
        _run([str(source), "-I", "-m", "venv", str(folder)])
        python = folder / "bin" / "python"
        _run([str(python), "-I", "-m", "pip", "install", *_PIP, "-r", str(self.requirements)])
        if self.edit is not None:
            _run([str(python), "-I", str(self.edit)])
        (folder / _STAMP).touch()
        return python


def default_cache() -> Path:
    """Return the user's cache folder: `XDG_CACHE_HOME`, else `~/.cache`. Raises LocalError without a home folder."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "okane"
    except RuntimeError as error:
        raise LocalError("there is no home folder for the simulator's packages: set XDG_CACHE_HOME") from error


def simulator_environ() -> dict[str, str]:
    """Return the environment in which a simulator's Python runs: without another one's packages."""
    return {name: value for name, value in os.environ.items() if name not in _NOT_OURS}


def _run(command: Sequence[str]) -> str:
    """Run a step of the set-up; return its output. Raises LocalError with the end of it."""
    done = subprocess.run(  # noqa: S603 - the Python that was found, and our own arguments
        command, capture_output=True, text=True, errors="replace", check=False, env=simulator_environ()
    )
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).strip().splitlines()[-_SHOWN_LINES:]
        raise LocalError("\n".join([f"{' '.join(command[:6])} ... failed:", *(f"  {line}" for line in lines)]))
    return done.stdout


@contextlib.contextmanager
def _lock(cache: Path, name: str) -> Iterator[None]:
    """Hold the lock of one simulator's set-up. It dies with its process."""
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(cache / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LocalError(f"cannot write the cache folder {cache}: {error.strerror}. Set XDG_CACHE_HOME") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
