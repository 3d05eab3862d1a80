"""`okane keys`: who may use the API. A secret is printed once, when it is made; afterwards nobody can say it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console
from rich.table import Table

from okane.api_key import ACCOUNT, ApiKey, Mode, NewKey, check_account_id, is_prefix, parse_scopes, prefix_of
from okane.commands.context import Context
from okane.errors import SetupError
from okane.rate import Rate
from okane.store import ApiKeyStore

_console = Console(highlight=False, markup=False, emoji=False)  # texts of others hold brackets


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The key to make, as the command line says it. `mode` is None for that of this system."""

    account: str = ACCOUNT
    scopes: str = "read,write"
    mode: Mode | None = None
    name: str = ""
    lifetime: timedelta | None = None
    rate: str | None = None


@contextlib.asynccontextmanager
async def _store(where: Context) -> AsyncIterator[ApiKeyStore]:
    store = ApiKeyStore(where.database_url)
    try:
        yield store
    finally:
        await store.aclose()


async def create(where: Context, wanted: Wanted, *, as_json: bool) -> None:
    """Make a key, and print its secret."""
    try:
        account_id, scopes = check_account_id(wanted.account), parse_scopes(wanted.scopes)
        rate = None if wanted.rate is None else Rate.parse(wanted.rate)
    except ValueError as error:
        raise SetupError(str(error)) from error
    mode = wanted.mode or where.settings.mode
    new = NewKey.make(mode)
    async with _store(where) as store:
        made = await store.create(
            new,
            account_id=account_id,
            mode=mode,
            scopes=scopes,
            name=wanted.name,
            lifetime=wanted.lifetime,
            rate=rate,
        )
    _tell_secret(new, made, as_json=as_json)


async def ls(where: Context, *, account: str | None, everything: bool, as_json: bool) -> None:
    """Print the keys that are valid, or all."""
    async with _store(where) as store:
        found = await store.list(account_id=account, ended=everything)
    if as_json:
        _json({"keys": [_document(key) for key in found]})
        return
    if not found:
        _console.print("no keys: make one with `okane keys create`")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("key", "account", "scopes", "name", "created", "last used", "ends"):
        table.add_column(column, no_wrap=column != "name")
    for key in found:
        ends = "revoked" if key.revoked_at is not None else _time(key.expires_at) or "never"
        used = _time(key.last_used_at) or "never"
        table.add_row(key.prefix, key.account_id, _scopes(key), key.name, _time(key.created_at), used, ends)
    _console.print(table, soft_wrap=not _console.is_terminal)


async def revoke(where: Context, prefix: str, *, as_json: bool) -> None:
    """Let a key in no more."""
    async with _store(where) as store:
        revoked = await store.revoke(_named(prefix))
    if revoked is None:
        raise SetupError(f"there is no key {_shown(prefix)}")
    if as_json:
        _json(_document(revoked))
    else:
        _console.print(f"revoked {revoked.prefix} of {revoked.account_id}: no API lets it in after a few seconds")


async def rotate(where: Context, prefix: str, *, overlap: timedelta, as_json: bool) -> None:
    """Make a key that may do the same, and let the old one end after the overlap."""
    old = _named(prefix)
    new = NewKey.make(Mode.LIVE if old.startswith("sk_live_") else Mode.TEST)
    async with _store(where) as store:
        made = await store.rotate(old, new, overlap=overlap)
    if made is None:
        raise SetupError(f"there is no valid key {_shown(old)}")
    _tell_secret(new, made, as_json=as_json)
    if not as_json:
        _console.print(f"the old one, {old}, ends in {overlap}", soft_wrap=True)


def _named(text: str) -> str:
    """The name of a key. Whoever has the whole of it at hand may give that, too."""
    return prefix_of(text) or text


def _shown(text: str) -> str:
    """The name of a key, for a message. Anything else may be a secret with a slip in it."""
    return text if is_prefix(_named(text)) else "of that name: `okane keys ls` has the names"


def _tell_secret(new: NewKey, made: ApiKey, *, as_json: bool) -> None:
    if as_json:
        _json({**_document(made), "secret": new.secret})
        return
    _console.print(new.secret, soft_wrap=True)
    ends = "" if made.expires_at is None else f", until {_time(made.expires_at)}"
    _console.print(f"for {made.account_id}: {_scopes(made)}{ends}. Keep it: it is not shown again.", soft_wrap=True)


def _document(key: ApiKey) -> dict[str, Any]:
    return {
        "key": key.prefix,
        "account_id": key.account_id,
        "mode": key.mode.value,
        "scopes": sorted(scope.value for scope in key.scopes),
        "name": key.name,
        "rate_limit": None if key.rate is None else str(key.rate),
        "created_at": _iso(key.created_at),
        "expires_at": _iso(key.expires_at),
        "revoked_at": _iso(key.revoked_at),
        "last_used_at": _iso(key.last_used_at),
    }


def _scopes(key: ApiKey) -> str:
    return ",".join(sorted(scope.value for scope in key.scopes))


def _time(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()


def _json(document: dict[str, Any]) -> None:
    print(json.dumps(document))  # noqa: T201 - the command's answer
