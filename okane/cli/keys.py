"""`okane keys`: create, list, revoke and rotate API keys. A secret is printed once: only its hash is stored."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer
from rich.table import Table

from okane.api_key import ACCOUNT, ApiKey, Mode, NewKey, check_account_id, is_prefix, parse_scopes, prefix_of
from okane.cli.context import Context, open_context
from okane.cli.options import Data, Json, check_label, positive_duration
from okane.cli.output import CONSOLE, iso, print_json
from okane.cli.running import run
from okane.errors import SetupError
from okane.rate import Rate
from okane.store import ApiKeyStore
from okane.timestamp_text import format_time

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command()
def create(
    *,
    data: Data = None,
    account: Annotated[str, typer.Option(help="the account that the key is for")] = ACCOUNT,
    scopes: Annotated[
        str, typer.Option(help="rights of the key: read, write, operate, webhooks, system, separated by commas")
    ] = "read,write",
    mode: Annotated[Mode | None, typer.Option(help="test or live money (default: OKANE_MODE)")] = None,
    name: Annotated[str, typer.Option(help="a description, shown in lists")] = "",
    expires: Annotated[str | None, typer.Option(help="expires after: 30m, 720h (default: never)")] = None,
    rate_limit: Annotated[
        str | None, typer.Option(help="rate limit: 100/s, 6000/m, 100/s burst 500 (default: OKANE_RATE_LIMIT)")
    ] = None,
    json_: Json = False,
) -> None:
    """Create a key. Its secret is printed once."""
    request = KeyRequest(
        account=account,
        scopes=scopes,
        mode=mode,
        name=check_label(name, "--name") if name else "",
        lifetime=None if expires is None else positive_duration(expires),
        rate=rate_limit,
    )
    run(_create(open_context(data), request, as_json=json_))


@app.command()
def ls(
    *,
    data: Data = None,
    account: Annotated[str | None, typer.Option(help="only keys of this account")] = None,
    everything: Annotated[bool, typer.Option("--all", help="include revoked and expired keys")] = False,
    json_: Json = False,
) -> None:
    """List keys with account, scopes and time of last use."""
    run(_list(open_context(data), account=account, everything=everything, as_json=json_))


@app.command()
def revoke(key: str, *, data: Data = None, json_: Json = False) -> None:
    """Revoke a key, named as in `okane keys ls`. Every API refuses it within 5 s."""
    run(_revoke(open_context(data), key, as_json=json_))


@app.command()
def rotate(
    key: str,
    *,
    data: Data = None,
    overlap: Annotated[str, typer.Option(help="the old key expires after: 30m, 24h")] = "24h",
    json_: Json = False,
) -> None:
    """Create a key with the rights of this one, which expires after the overlap."""
    run(_rotate(open_context(data), key, overlap=positive_duration(overlap), as_json=json_))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest:
    """The options of `okane keys create`. A `mode` of None is that of the settings."""

    account: str = ACCOUNT
    scopes: str = "read,write"
    mode: Mode | None = None
    name: str = ""
    lifetime: timedelta | None = None
    rate: str | None = None


@contextlib.asynccontextmanager
async def _open_store(context: Context) -> AsyncIterator[ApiKeyStore]:
    store = ApiKeyStore(context.database_url)
    try:
        yield store
    finally:
        await store.aclose()


async def _create(context: Context, request: KeyRequest, *, as_json: bool) -> None:
    """Create a key and print its secret."""
    try:
        account_id, scopes = check_account_id(request.account), parse_scopes(request.scopes)
        rate = None if request.rate is None else Rate.parse(request.rate)
    except ValueError as error:
        raise SetupError(str(error)) from error
    mode = request.mode or context.settings.mode
    new = NewKey.make(mode)
    async with _open_store(context) as store:
        made = await store.create(
            new,
            account_id=account_id,
            mode=mode,
            scopes=scopes,
            name=request.name,
            lifetime=request.lifetime,
            rate=rate,
        )
    _print_secret(new, made, as_json=as_json)


async def _list(context: Context, *, account: str | None, everything: bool, as_json: bool) -> None:
    """Print the keys that are valid, or all."""
    async with _open_store(context) as store:
        found = await store.list(account_id=account, ended=everything)
    if as_json:
        print_json({"keys": [_document(key) for key in found]})
        return
    if not found:
        CONSOLE.print("no keys: create one with `okane keys create`")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("key", "account", "scopes", "name", "created", "last used", "ends"):
        table.add_column(column, no_wrap=column != "name")
    for key in found:
        ends = "revoked" if key.revoked_at is not None else _time(key.expires_at)
        used = _time(key.last_used_at)
        table.add_row(key.prefix, key.account_id, _scopes(key), key.name, format_time(key.created_at), used, ends)
    CONSOLE.print(table, soft_wrap=not CONSOLE.is_terminal)


async def _revoke(context: Context, prefix: str, *, as_json: bool) -> None:
    """Revoke a key."""
    async with _open_store(context) as store:
        revoked = await store.revoke(_key_name(prefix))
    if revoked is None:
        raise SetupError(f"there is no key {_displayed_name(prefix)}")
    if as_json:
        print_json(_document(revoked))
    else:
        CONSOLE.print(f"revoked {revoked.prefix} of {revoked.account_id}: every API refuses it within a few seconds")


async def _rotate(context: Context, prefix: str, *, overlap: timedelta, as_json: bool) -> None:
    """Create a key with the same rights; the old one expires after the overlap."""
    old = _key_name(prefix)
    new = NewKey.make(Mode.LIVE if old.startswith("sk_live_") else Mode.TEST)
    async with _open_store(context) as store:
        made = await store.rotate(old, new, overlap=overlap)
    if made is None:
        raise SetupError(f"there is no valid key {_displayed_name(old)}")
    _print_secret(new, made, as_json=as_json)
    if not as_json:
        CONSOLE.print(f"the old one, {old}, expires in {overlap}", soft_wrap=True)


def _key_name(text: str) -> str:
    """Return the name of a key, given its name or its whole secret."""
    return prefix_of(text) or text


def _displayed_name(text: str) -> str:
    """Return the name of a key for a message. Any other text may be a mistyped secret and is not repeated."""
    return text if is_prefix(_key_name(text)) else "of that name: `okane keys ls` has the names"


def _print_secret(new: NewKey, made: ApiKey, *, as_json: bool) -> None:
    if as_json:
        print_json({**_document(made), "secret": new.secret})
        return
    CONSOLE.print(new.secret, soft_wrap=True)
    ends = "" if made.expires_at is None else f", until {format_time(made.expires_at)}"
    CONSOLE.print(f"for {made.account_id}: {_scopes(made)}{ends}. Keep it: it is not shown again.", soft_wrap=True)


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
    return "never" if moment is None else format_time(moment)


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else iso(moment)
