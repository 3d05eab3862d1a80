"""Find another Python on this machine: simulators of gateways need a newer one than okane does. Installs nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

# A shim of pyenv is on the PATH whether or not its version is active, and Debian's Python may lack venv: only a run tells.
_PROBE = "import ensurepip, venv, sys; print('{}.{}'.format(*sys.version_info[:2]))"
_PROBE_TIMEOUT_S = 30.0


def find_python(versions: Sequence[str]) -> Path | None:
    """Return a Python of the first of these versions ("3.14") that can make virtual environments; None if there is none.

    It looks at the Python of this process, the PATH, the versions of pyenv, and those that `uv` knows. May take a second.
    """
    for version in versions:
        for candidate in _candidates(version):
            if _answers(candidate, version):
                return candidate
    return None


def _candidates(version: str) -> Iterator[Path]:
    if version == "{}.{}".format(*sys.version_info[:2]):
        yield Path(sys.executable)
    for folder in os.get_exec_path():
        yield Path(folder) / f"python{version}"
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: there is no home folder
        pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
        yield from sorted(pyenv.glob(f"{version}.*/bin/python3"), key=_age, reverse=True)
    uv = shutil.which("uv")
    if uv is not None:
        found = _output([uv, "python", "find", "--no-python-downloads", version])
        if found:
            yield Path(found)


def _age(python: Path) -> tuple[int, str]:
    """Order 3.13.10 after 3.13.9."""
    name = python.parents[1].name
    micro = name.rpartition(".")[2]
    return (int(micro) if micro.isdecimal() else -1, name)


def _answers(python: Path, version: str) -> bool:
    return os.access(python, os.X_OK) and _output([str(python), "-I", "-c", _PROBE]) == version


def _output(command: Sequence[str]) -> str:
    """Return the output of a command, or nothing if it fails."""
    try:
        done = subprocess.run(  # noqa: S603 - a Python or uv that the user has installed
            command, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
