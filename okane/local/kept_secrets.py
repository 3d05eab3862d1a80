"""The secrets in a data folder that `okane up` makes once, and its processes read there: the master of webhooks, and the one
that signs the sessions of the console.

Promise: only the owner can read the files. They stay for as long as the folder: another master would change every secret of
an endpoint, and another signature would end every session.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from okane import binding
from okane.config import Settings
from okane.origin_guard import is_loopback

LOOPBACK = "127.0.0.0/8,::1/128"  # a receiver on this machine


def webhook_environment(settings: Settings, kept_in: Path) -> Mapping[str, str]:
    """Return the variables by which the processes sign webhooks and reach receivers on this machine.

    Settings that the user has made stay. Makes the master if there is none.
    """
    env: dict[str, str] = {}
    if settings.webhook_master is None:
        _make(kept_in)
        env["OKANE_WEBHOOK_MASTER"] = f"file:{kept_in.resolve()}"
    # A key that may create endpoints may reach what is allowed here: not for keys of other machines.
    if settings.webhook_allow is None and all(map(is_loopback, binding.hosts(settings.host))):
        env["OKANE_WEBHOOK_ALLOW"] = LOOPBACK
    return env


def console_environment(settings: Settings, kept_in: Path) -> Mapping[str, str]:
    """Return the variables by which the console signs sessions. A secret that the user has set stays."""
    if settings.console_secret is not None:
        return {}
    _make(kept_in)
    return {"OKANE_CONSOLE_SECRET": f"file:{kept_in.resolve()}"}


def _make(path: Path) -> None:
    if not path.exists():
        draft = path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32) + "\n")
        draft.replace(path)
