"""A launcher that runs between `okane up` and a program: it makes the kernel end the program when its parent dies.

Run by path: `python -I -S parent_death.py PARENT_PID SIGNAL UID:GID PROGRAM [ARGUMENT ...]`. On Linux the kernel then sends
SIGNAL to the program when the parent dies, even by kill -9. A separate program rather than `preexec_fn`, because that runs
Python between fork and exec, which may deadlock in a process that has threads.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Change to `UID:GID` (empty: stay), request SIGNAL at the parent's death, execute PROGRAM. Never returns."""
    parent_pid, signal_number, account, *command = arguments
    prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None
    if account:
        uid, gid = (int(part) for part in account.split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if prctl is not None:
        # After the change of user, which clears it. A parent that died before this line never signals: check.
        if prctl(PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != int(parent_pid):
            sys.exit(f"{command[0]}: the process that started it is gone")
    os.execv(command[0], command)  # noqa: S606 - a list of arguments from our own code; no shell is involved


if __name__ == "__main__":
    main(sys.argv[1:])
