"""The master secret of webhooks in a data folder: `okane up` makes it once, and its API and dispatcher read it there.

Promise: only the owner can read the file. It stays for as long as the folder: another one would change every secret.
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


def _make(path: Path) -> None:
    if not path.exists():
        draft = path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32) + "\n")
        draft.replace(path)
