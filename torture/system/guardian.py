"""A guardian process that ends the programs of a torture run that was itself killed, even by kill -9.

A program ends with its parent by itself (see okane/local/parent_death.py), unless it is stopped at that moment, as some here
are: then the signal waits for ever. So a small process of its own waits for the end of the torture, and kills what the roster
still names.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from okane.local.data_folder import DataFolder
from okane.local.okane_process import own_path
from okane.local.processes import Record


@contextlib.contextmanager
def guarded(folder: DataFolder) -> Iterator[None]:
    """Kill the programs of the folder's roster if this process dies inside the block."""
    guardian = subprocess.Popen(  # noqa: S603 - ourselves
        [sys.executable, "-P", "-m", "torture.system.guardian", str(folder.path)],
        stdin=subprocess.PIPE,
        env={**os.environ, **own_path()},
        start_new_session=True,  # a terminal's Ctrl-C is not for it
    )
    assert guardian.stdin is not None
    try:
        yield
    finally:
        guardian.stdin.close()
        guardian.wait()


def main(folder: DataFolder) -> None:
    """Wait until the process that holds the other end of standard input has ended, then kill."""
    sys.stdin.buffer.read()
    for record in reversed(folder.roster.load()):
        kill_family(record)


def kill_family(record: Record) -> None:
    """kill -9 of a process and of all that it started; nothing if it is gone."""
    process = record.find()
    if process is None:
        return
    with contextlib.suppress(psutil.Error):
        for member in (*process.children(recursive=True), process):
            with contextlib.suppress(psutil.Error):
                member.kill()


if __name__ == "__main__":
    main(DataFolder(Path(sys.argv[1])))
