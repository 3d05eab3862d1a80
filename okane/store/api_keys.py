"""API keys: created, listed, revoked and rotated by an operator, and looked up for every request with one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

from okane.api_key import ApiKey, Mode, NewKey, Scope
from okane.rate import Rate
from okane.store import sql_files
from okane.store.prepared_statements import Row
from okane.store.session import Session
from okane.store.sql_parameters import milliseconds
from streams import Coalescer

_COLUMNS = """k.prefix, k.account_id, k.mode, k.scopes, k.name, k.rate_limit, k.created_at, k.expires_at, k.revoked_at,
    k.last_used_at"""
SQL = {name: text.replace("{key}", _COLUMNS) for name, text in sql_files.load_statements("api_keys.sql").items()}


@dataclass(frozen=True, slots=True)
class StoredKey:
    """The stored side of a key check. `left_s`: seconds until it expires, None for never."""

    prefix: str
    secret_hash: bytes
    account_id: str
    mode: Mode
    scopes: frozenset[Scope]
    rate: Rate | None
    revoked: bool
    left_s: float | None


class ApiKeyStore:
    """The keys in one Postgres database. Time is the database's."""

    def __init__(self, url: str, *, timeout: timedelta = timedelta(seconds=10)) -> None:
        self._session = Session(url, name="keys", timeout=timeout)
        self._finding: Coalescer[str, StoredKey | None] = Coalescer(self._find)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._finding.aclose()
        await self._session.aclose()

    async def find(self, prefix: str) -> StoredKey | None:
        """Return the key with this prefix, or None. Concurrent calls share a round trip. Raises StoreUnavailable."""
        return await self._finding.submit(prefix)

    async def create(
        self,
        key: NewKey,
        *,
        account_id: str,
        mode: Mode,
        scopes: Collection[Scope],
        name: str = "",
        lifetime: timedelta | None = None,
        rate: Rate | None = None,
    ) -> ApiKey:
        """Store a new key."""
        made = {
            "prefix": key.prefix,
            "secret_hash": key.hash,
            "account_id": account_id,
            "mode": mode.value,
            "scopes": sorted(scope.value for scope in set(scopes)),
            "name": name,
            "rate_limit": None if rate is None else str(rate),
            "lifetime_ms": None if lifetime is None else milliseconds(lifetime),
        }
        return _key((await self._session.fetch(SQL["create"], made))[0])

    async def list(
        self, *, account_id: str | None = None, ended: bool = False, limit: int | None = None, after: str | None = None
    ) -> Sequence[ApiKey]:
        """Return the keys of an account, or of all accounts; with `ended`, the revoked and expired ones too.

        `limit`: that many at most. `after`: those behind the key with this name; of an unknown one there are none.
        """
        parameters = {"account_id": account_id, "ended": ended, "limit": limit, "after": after}
        found = await self._session.fetch_repeatable(SQL["list"], parameters)
        return [_key(row) for row in found]

    async def revoke(self, prefix: str) -> ApiKey | None:
        """Revoke a key. Return None if there is no such key."""
        found = await self._session.fetch_repeatable(SQL["revoke"], {"prefix": prefix})
        return _key(found[0]) if found else None

    async def rotate(self, old: str, new: NewKey, *, overlap: timedelta) -> ApiKey | None:
        """Store a key that replaces `old`, which expires after the overlap. Return None if `old` is not valid."""
        parameters = {"old": old, "prefix": new.prefix, "secret_hash": new.hash, "overlap_ms": milliseconds(overlap)}
        found = await self._session.fetch(SQL["rotate"], parameters)
        return _key(found[0]) if found else None

    async def touch(self, prefixes: Collection[str]) -> int:
        """Write `last_used_at` of these keys, at most once a minute each; return how many rows changed."""
        return len(await self._session.fetch_repeatable(SQL["touch"], {"prefixes": list(prefixes)}))

    async def _find(self, prefixes: Sequence[str]) -> Sequence[StoredKey | None]:
        read = await self._session.fetch_repeatable(SQL["find"], {"prefixes": list(set(prefixes))})
        found = {row[0]: _stored(row) for row in read}
        return [found.get(prefix) for prefix in prefixes]


def _stored(row: Row) -> StoredKey:
    prefix, secret_hash, account_id, mode, scopes, rate, revoked, left_s = row
    return StoredKey(
        prefix, bytes(secret_hash), account_id, Mode(mode), _scopes(scopes), _rate(rate), bool(revoked), left_s
    )


def _key(row: Row) -> ApiKey:
    prefix, account_id, mode, scopes, name, rate, created_at, expires_at, revoked_at, last_used_at = row
    return ApiKey(
        prefix=prefix,
        account_id=account_id,
        mode=Mode(mode),
        scopes=_scopes(scopes),
        name=name,
        rate=_rate(rate),
        created_at=created_at,
        expires_at=expires_at,
        revoked_at=revoked_at,
        last_used_at=last_used_at,
    )


def _scopes(words: Sequence[str]) -> frozenset[Scope]:
    """Return the scopes that this version knows: during an upgrade a newer one may have made a key with others."""
    return frozenset(scope for scope in Scope if scope.value in words)


def _rate(text: str | None) -> Rate | None:
    return None if text is None else Rate.parse(text)
