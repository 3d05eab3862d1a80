"""Authentication: the caller of a request, by its API key, and the scopes of that key.

Guarantee: an expired key is refused at once, a revoked one within `CACHE_S`. Secrets are compared by their hashes in constant
time, and are written nowhere.
"""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import math
import time
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Protocol, TypeVar

import structlog
from aiohttp import web

from okane import api_key
from okane.api.problems import Problem
from okane.api.rate_limit import RateLimits
from okane.api_key import ACCOUNT, Mode, Scope
from okane.errors import StoreUnavailable
from okane.rate import Rate
from okane.store import API, ApiKeyStore
from okane.store.key_check import CACHE_S, UNKNOWN, KeyUse, pause_between_writes, reason_to_refuse

log = structlog.get_logger("okane.api")

T = TypeVar("T")

_NO_HEADERS: Mapping[str, str] = {}

MAX_CACHED = 10_000  # keys in the cache, and as many refused secrets


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a request. `key` is the name of its key; without keys, the account.

    `headers` are those about its rate limit, if it has one. `actor` is its name in the history of a payment. `scopes` are
    those of its key; without keys, all.
    """

    account_id: str
    key: str
    rate: Rate | None
    headers: Mapping[str, str] = field(default_factory=dict)
    actor: str = API
    scopes: frozenset[Scope] = frozenset()


CALLER = web.RequestKey("caller", Caller)  # set on every route that takes a key


def account_of(request: web.Request) -> str:
    """Return the account whose payments a request may see and change."""
    return request[CALLER].account_id


def actor_of(request: web.Request) -> str:
    """Return the name under which the history of a payment has the changes of a request."""
    return request[CALLER].actor


def require_scope(request: web.Request, scope: Scope) -> None:
    """Raise a 403 Problem if the caller's key lacks a scope that a parameter needs, beside that of the route."""
    if scope not in request[CALLER].scopes:
        raise _scope_missing(scope)


class Access(Protocol):
    """Admits requests."""

    def admit_cached(self, credentials: Sequence[str], scope: Scope) -> Caller | None:
        """Return the caller as `admit` does, or None if that takes a round trip to Postgres or Redis."""
        ...

    async def admit(self, credentials: Sequence[str], scope: Scope) -> Caller:
        """Return the caller with these `Authorization` headers, and count the request against its rate limit.

        Raises Problem if the key is not valid, lacks the scope or exceeds its limit; StoreUnavailable if Postgres is away.
        """
        ...

    async def count_unrouted(self, credentials: Sequence[str]) -> Mapping[str, str]:
        """Count a request that matches no route against its key; return the headers about the limit, none without a valid
        key. Raises a 429 Problem if the limit is exceeded."""
        ...


class AnonymousAccess:
    """Admit every request as the default account (`OKANE_AUTH=none`)."""

    def __init__(self, limits: RateLimits | None = None, *, rate: Rate | None = None) -> None:
        self._limits = limits
        self._caller = Caller(ACCOUNT, ACCOUNT, rate, scopes=frozenset(Scope))

    def admit_cached(self, _credentials: Sequence[str], _scope: Scope) -> Caller | None:
        return self._caller if self._caller.rate is None else None

    async def admit(self, _credentials: Sequence[str], _scope: Scope) -> Caller:
        return await _count_against_limit(self._caller, self._limits)

    async def count_unrouted(self, _credentials: Sequence[str]) -> Mapping[str, str]:
        return (await _count_against_limit(self._caller, self._limits)).headers


@dataclass(slots=True)
class _CachedKey:
    """A valid key, and until when (time.monotonic()) it is used without a look at Postgres."""

    caller: Caller
    scopes: frozenset[Scope]
    until_s: float


@dataclass(frozen=True, slots=True)
class _RefusedSecret:
    """The reason to refuse a secret, and until when (time.monotonic()) it is used without a look at Postgres."""

    detail: str
    until_s: float


class KeyAccess:
    """Admit requests that carry a valid key of this system's mode (`OKANE_AUTH=keys`).

    `rate` limits each key that has no limit of its own.
    """

    def __init__(
        self,
        store: ApiKeyStore,
        limits: RateLimits | None = None,
        *,
        mode: Mode,
        rate: Rate | None = None,
        cache_s: float = CACHE_S,
    ) -> None:
        self._store = store
        self._limits = limits
        self._mode = mode
        self._rate = rate
        self._cache_s = cache_s
        # Keyed by the secret, not by the header: a header can spell one key in thousands of ways (scheme, blanks, the
        # password of Basic). A dict lookup does not leak how much of a secret is right: it compares hashes under a seed of
        # this process, and the strings only if the hashes are equal.
        self._cached: dict[str, _CachedKey] = {}
        self._refused: dict[str, _RefusedSecret] = {}
        self._use = KeyUse(store)

    def admit_cached(self, credentials: Sequence[str], scope: Scope) -> Caller | None:
        found = self._cached_key(_secret_of(credentials))
        if found is None or found.caller.rate is not None:
            return None
        if scope not in found.scopes:
            raise _scope_missing(scope)
        return found.caller

    async def admit(self, credentials: Sequence[str], scope: Scope) -> Caller:
        found = await self._key_of(_secret_of(credentials))
        caller = await _count_against_limit(found.caller, self._limits)
        if scope not in found.scopes:  # counted nevertheless: else a key could send forbidden requests without limit
            raise _scope_missing(scope, caller.headers)
        return caller

    async def count_unrouted(self, credentials: Sequence[str]) -> Mapping[str, str]:
        try:
            found = await self._key_of(_secret_of(credentials))
        except (Problem, StoreUnavailable):  # there is no valid key to count against
            return {}
        return (await _count_against_limit(found.caller, self._limits)).headers

    async def _key_of(self, secret: str) -> _CachedKey:
        return self._cached_key(secret) or await self._fetch_key(secret)

    def _cached_key(self, secret: str) -> _CachedKey | None:
        found = self._cached.get(secret)
        if found is None or time.monotonic() >= found.until_s:
            return None
        self._use.add(found.caller.key)
        return found

    async def _fetch_key(self, secret: str) -> _CachedKey:
        prefix = api_key.prefix_of(secret)
        if prefix is None:
            raise _key_invalid("this is not an API key")
        asked_s = time.monotonic()  # before the query: a cached answer must not be older than it claims
        refused = self._refused.get(secret)
        if refused is not None and asked_s < refused.until_s:
            raise _key_invalid(refused.detail)
        key = await self._store.find(prefix)
        detail = reason_to_refuse(secret, key, self._mode)
        if key is None or detail is not None:
            detail = detail or UNKNOWN
            _cache_answer(self._refused, secret, _RefusedSecret(detail, asked_s + self._cache_s))
            raise _key_invalid(detail)
        caller = Caller(
            key.account_id, key.prefix, key.rate or self._rate, actor=f"{API} {key.prefix}", scopes=key.scopes
        )
        left_s = math.inf if key.left_s is None else key.left_s
        found = _CachedKey(caller, key.scopes, asked_s + min(self._cache_s, left_s))
        _cache_answer(self._cached, secret, found)
        self._use.add(key.prefix)
        return found

    async def run(self, stop: asyncio.Event) -> None:
        """Write when keys were used, until `stop` is set, and once more after that."""
        while not stop.is_set():
            await pause_between_writes(stop)
            await self.run_once()
        await self.run_once()

    def evict(self) -> int:
        """Drop the cached answers whose time is over; return how many."""
        now_s = time.monotonic()
        before = len(self._cached) + len(self._refused)
        self._cached = {secret: one for secret, one in self._cached.items() if now_s < one.until_s}
        self._refused = {secret: one for secret, one in self._refused.items() if now_s < one.until_s}
        return before - len(self._cached) - len(self._refused)

    async def run_once(self) -> int:
        """Write `last_used_at` of the keys used since the last run; return how many rows changed.

        While Postgres is away the keys stay queued.
        """
        self.evict()
        return await self._use.write()


async def _count_against_limit(caller: Caller, limits: RateLimits | None) -> Caller:
    """Count a request against the caller's rate limit; return the caller with the headers about it."""
    if caller.rate is None or limits is None:
        return caller
    return replace(caller, headers=await limits.take(caller.key, caller.rate))


def _cache_answer(known: dict[str, T], secret: str, found: T) -> None:
    """Cache an answer; it takes the place of the oldest if the cache is full."""
    known.pop(secret, None)
    if len(known) >= MAX_CACHED:
        del known[next(iter(known))]
    known[secret] = found


def _secret_of(credentials: Sequence[str]) -> str:
    """Return the key: a Bearer token, or the user of HTTP Basic (its password is ignored)."""
    if not credentials:
        raise _key_missing("send the header Authorization: Bearer sk_…")
    if len(credentials) > 1:
        raise _key_invalid("send one Authorization header")
    if credentials[0].startswith("Bearer sk_"):  # as nearly all do
        return credentials[0][7:].rstrip()
    scheme, _, value = credentials[0].strip().partition(" ")
    match scheme.lower():
        case "bearer":
            return value.strip()
        case "basic":
            with contextlib.suppress(binascii.Error, UnicodeDecodeError, ValueError):
                return b64decode(value.strip(), validate=True).decode("ascii").partition(":")[0]
            raise _key_invalid("the credentials are not base64")
        case _:
            raise _key_missing("send the key as Authorization: Bearer sk_…, or as the user of HTTP Basic")


def _key_missing(detail: str) -> Problem:
    return Problem(HTTPStatus.UNAUTHORIZED, "key_missing", detail, headers={"WWW-Authenticate": _CHALLENGE})


def _key_invalid(detail: str) -> Problem:
    headers = {"WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"'}
    return Problem(HTTPStatus.UNAUTHORIZED, "key_invalid", detail, headers=headers)


def _scope_missing(scope: Scope, rate_limit_headers: Mapping[str, str] = _NO_HEADERS) -> Problem:
    headers = {
        "WWW-Authenticate": f'{_CHALLENGE}, error="insufficient_scope", scope="{scope.value}"',
        **rate_limit_headers,
    }
    detail = f"this takes a key with the scope {scope.value}"
    return Problem(HTTPStatus.FORBIDDEN, "scope_missing", detail, headers=headers)


_CHALLENGE = 'Bearer realm="okane"'

# The two ways to send a key, as OpenAPI declares them.
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The API key, as a token."},
    "basic": {"type": "http", "scheme": "basic", "description": "The API key as the user, without a password."},
}
