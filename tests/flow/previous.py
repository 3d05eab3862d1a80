"""The version before this one, from the repository's history: its processes run beside ours while a version is rolled out."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

# The newest commit of the version before: raise it with each release. Nothing is released yet; this one is the last of schema
# version 4, whose processes write no webhook events.
PREVIOUS = "c3f5d8d38e11e25cda1ce228768fa0d8ccd76e3a"

ROOT = Path(__file__).parents[2]


def unpack(folder: Path) -> Mapping[str, str]:
    """Put the previous version into `folder`, and return the environment in which `python -m okane` is that version.

    It runs on the packages of this version: its requirements are met by them, or its processes would not start.
    """
    if _git("cat-file", "-e", f"{PREVIOUS}^{{commit}}").returncode:
        _git("fetch", "--quiet", "--depth", "1", "origin", PREVIOUS)  # a shallow clone
    archive = _git("archive", "--format=tar", PREVIOUS, "okane", "streams", "schema.sql")
    if archive.returncode:
        raise LookupError(f"commit {PREVIOUS[:7]} is not to be had: {archive.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.2, of Debian, has no filters
        files.extractall(folder)
    return {"PYTHONPATH": str(folder)}


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    # A checkout that belongs to another user, as in a container, is none of git's business here.
    command = ["git", "-c", "safe.directory=*", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False)
