"""The API key of a data folder: `okane up` creates one, stores it there, and prints it for a first request.

Promise: only the owner can read the file, and a key that the database does not hold, has revoked, or that lacks a scope, is
replaced.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from okane import api_key
from okane.api_key import ACCOUNT, Mode, NewKey, Scope
from okane.store import ApiKeyStore


async def first_key(database_url: str, *, mode: Mode, kept_in: Path) -> str:
    """Return the secret of a key with all scopes, creating it if needed."""
    store = ApiKeyStore(database_url)
    try:
        kept = _read(kept_in)
        if kept is not None and await _is_valid(store, kept, mode):
            return kept
        new = NewKey.make(mode)
        await store.create(new, account_id=ACCOUNT, mode=mode, scopes=tuple(Scope), name="okane up")
        _write(kept_in, new.secret)
        return new.secret
    finally:
        await store.aclose()


async def _is_valid(store: ApiKeyStore, secret: str, mode: Mode) -> bool:
    prefix = api_key.prefix_of(secret)
    found = None if prefix is None else await store.find(prefix)
    return (
        found is not None
        and api_key.matches(secret, found.secret_hash)
        and found.mode is mode
        and found.scopes == frozenset(Scope)  # of an older version: it lacks a newer scope
        and not found.revoked
        and (found.left_s is None or found.left_s > 0)
    )


def _read(path: Path) -> str | None:
    with contextlib.suppress(FileNotFoundError):
        return path.read_text().strip()
    return None


def _write(path: Path, secret: str) -> None:
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret + "\n")
    draft.replace(path)
