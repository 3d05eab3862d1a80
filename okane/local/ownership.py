"""Protect the data of `okane up` from other users, and create the user that Postgres runs as where okane runs as root.

Guarantee: a folder that others could write to or replace is closed to them, with a message, or refused.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from okane.local.processes import Account
from okane.local.server import LocalError

POSTGRES_USER = "okane-postgres"
_FALLBACK = "nobody"
_SYSTEM_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
_TRIES = 10  # another process may be writing /etc/passwd
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def close_to_others(folder: Path, report: Callable[[str], None]) -> None:
    """Close a data folder to other users. Raise LocalError if others could have written to it."""
    for above in folder.parents:
        seen = above.stat()
        if seen.st_mode & stat.S_IWOTH and not seen.st_mode & stat.S_ISVTX:
            raise LocalError(f"every user may replace {folder}: run `chmod o-w {above}`, or give another --data folder")
    seen = folder.lstat()
    if not stat.S_ISDIR(seen.st_mode):
        raise LocalError(f"{folder} is not a folder: give another one with --data")
    if seen.st_uid != os.geteuid():
        raise LocalError(
            f"{folder} belongs to {user_name(seen.st_uid)}: run as that user, or give another --data folder"
        )
    if not seen.st_mode & 0o077:
        return
    entries = {entry.name: entry for entry in os.scandir(folder)}
    if entries and "lock" not in entries:
        raise LocalError(
            f"{folder} is open to other users and holds what is not okane's: give a folder of its own with --data"
        )
    folder.chmod(0o700)
    if folder.stat().st_mode & 0o077:
        raise LocalError(f"{folder} cannot be closed to other users: give a --data folder on another file system")
    report(f"closed {folder} to other users (it had mode {stat.S_IMODE(seen.st_mode):04o})")
    if not seen.st_mode & _OTHERS_MAY_WRITE:
        return
    for entry in entries.values():
        if entry.stat(follow_symlinks=False).st_uid != os.geteuid():
            raise LocalError(
                f"another user has put {entry.name} into {folder}: look at it and remove it, or give another --data"
            )


def postgres_account(report: Callable[[str], None]) -> Account:
    """Return the user that Postgres runs as under root: okane-postgres, created if missing, else `nobody`, with a message."""
    reason = "" if _known(POSTGRES_USER) else _make_user()
    name = POSTGRES_USER if _known(POSTGRES_USER) else _FALLBACK
    if not _known(name):
        raise LocalError(
            f"Postgres cannot run as root, and this machine has no user for it ({reason}): run okane as an ordinary user,"
            " or set DATABASE_URL"
        )
    if name == _FALLBACK:
        report(f"Postgres runs as {name}, whose other processes may read its data: no user of its own ({reason})")
    entry = pwd.getpwnam(name)
    return Account(uid=entry.pw_uid, gid=entry.pw_gid)


def _make_user() -> str:
    """Create the user. Return an empty text, or the reason why that failed."""
    if (useradd := shutil.which("useradd", path=_SYSTEM_PATH)) is not None:
        options = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
        command = [useradd, *options, "--shell", "/usr/sbin/nologin", POSTGRES_USER]
    elif (adduser := shutil.which("adduser", path=_SYSTEM_PATH)) is not None:  # BusyBox
        command = [adduser, "-S", "-D", "-H", "-h", "/nonexistent", "-s", "/sbin/nologin", POSTGRES_USER]
    else:
        return "there is no useradd"
    reason = ""
    for _ in range(_TRIES):
        try:
            done = subprocess.run(  # noqa: S603 - a program of the system
                command, env={"PATH": _SYSTEM_PATH}, capture_output=True, text=True, timeout=30, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if done.returncode == 0 or _known(POSTGRES_USER):
            return ""
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
        if "lock" not in reason:
            break
        time.sleep(0.2)
    return reason


def hand_over(folder: Path, account: Account) -> None:
    """Give the cluster of another user to this one. If interrupted, it is repeated: the folder itself comes last.

    Raise LocalError for a file with another name elsewhere: its old owner could have linked one there that is not its own.
    """
    os.chown(folder, 0, 0, follow_symlinks=False)  # closed to the old owner
    for where, folders, files, descriptor in os.fwalk(folder, follow_symlinks=False):
        for name in (*folders, *files):
            with contextlib.ExitStack() as closing:
                try:
                    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
                    opened = os.open(name, flags, dir_fd=descriptor)
                except OSError as error:
                    raise LocalError(f"{where}/{name} cannot be given to another user: {error.strerror}") from error
                closing.callback(os.close, opened)
                seen = os.fstat(opened)
                if stat.S_ISREG(seen.st_mode) and seen.st_nlink > 1:
                    raise LocalError(f"{where}/{name} has another name elsewhere: copy it, and remove the link")
                os.fchown(opened, account.uid, account.gid)
    os.chown(folder, account.uid, account.gid, follow_symlinks=False)


def _known(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def user_name(uid: int) -> str:
    """Return the name of a user for a message."""
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"
