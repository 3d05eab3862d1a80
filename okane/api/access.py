"""Who a request comes from, and whether that key may do what it asks for.

Promise: a key that has expired is refused at once, and one that was revoked within `FRESH_S`. No secret is compared by a
shortcut, nor written anywhere.
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
from okane.store import API, ApiKeyStore, StoredKey

log = structlog.get_logger("okane.api")

T = TypeVar("T")

_NO_HEADERS: Mapping[str, str] = {}
_UNKNOWN = "there is no such API key"

FRESH_S = 5.0  # how long a key that was let in, or refused, is not asked about again
MAX_KNOWN = 10_000  # keys that are remembered at a time, and as many that were refused
NOTE_USE_S = 10.0  # between two looks at what was used; the store writes it once a minute at most


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a request comes from. `key` is the name of the key; where there are none, the account.

    `headers` tell the client how it stands with its rate limit; there are none where there is none. `actor` is how the
    history of a payment names the caller.
    """

    account_id: str
    key: str
    rate: Rate | None
    headers: Mapping[str, str] = field(default_factory=dict)
    actor: str = API


CALLER = web.RequestKey("caller", Caller)  # set on every route that takes a key


def account_of(request: web.Request) -> str:
    """Return the account whose payments a request may see and change."""
    return request[CALLER].account_id


def actor_of(request: web.Request) -> str:
    """Return the name under which the history of a payment has the changes of a request."""
    return request[CALLER].actor


class Access(Protocol):
    """Lets requests in."""

    def known(self, credentials: Sequence[str], scope: Scope) -> Caller | None:
        """`admit` without a question to Postgres or Redis; None where it takes one. Raises Problem as `admit` does."""
        ...

    async def admit(self, credentials: Sequence[str], scope: Scope) -> Caller:
        """The caller with these `Authorization` headers, who may do what takes this scope, and as often as this.

        Raises Problem if it may not, StoreUnavailable if that cannot be told.
        """
        ...

    async def count(self, credentials: Sequence[str]) -> Mapping[str, str]:
        """Count a request to no route of ours against the key it carries: the headers about its limit, none if it carries
        no valid key. Raises a 429 Problem if it is one too many."""
        ...


class AnonymousAccess:
    """`OKANE_AUTH=none`: whoever reaches the port."""

    def __init__(self, limits: RateLimits | None = None, *, rate: Rate | None = None) -> None:
        self._limits = limits
        self._caller = Caller(ACCOUNT, ACCOUNT, rate)

    def known(self, _credentials: Sequence[str], _scope: Scope) -> Caller | None:
        return self._caller if self._caller.rate is None else None

    async def admit(self, _credentials: Sequence[str], _scope: Scope) -> Caller:
        return await _limited(self._caller, self._limits)

    async def count(self, _credentials: Sequence[str]) -> Mapping[str, str]:
        return (await _limited(self._caller, self._limits)).headers


@dataclass(slots=True)
class _CachedKey:
    """A key that was found and checked, and until when (time.monotonic()) nobody is asked about it again."""

    caller: Caller
    scopes: frozenset[Scope]
    until_s: float


@dataclass(frozen=True, slots=True)
class _RefusedSecret:
    """The answer to a secret that was refused, and until when (time.monotonic()) Postgres is not asked about it again."""

    detail: str
    until_s: float


class KeyAccess:
    """`OKANE_AUTH=keys`: whoever has a key of this system's mode, that was neither revoked nor has expired.

    `rate` limits each key that has no limit of its own.
    """

    def __init__(
        self,
        store: ApiKeyStore,
        limits: RateLimits | None = None,
        *,
        mode: Mode,
        rate: Rate | None = None,
        fresh_s: float = FRESH_S,
    ) -> None:
        self._store = store
        self._limits = limits
        self._mode = mode
        self._rate = rate
        self._fresh_s = fresh_s
        # By the secret, not by the header that carried it: one key has thousands of spellings (scheme, blanks, the password
        # of Basic), and one entry. To look up a text in a dict does not show how much of it is right: what is compared are
        # hashes under a secret of this process, and the texts only if those are equal.
        self._let_in: dict[str, _CachedKey] = {}
        self._refused: dict[str, _RefusedSecret] = {}
        self._used: set[str] = set()

    def known(self, credentials: Sequence[str], scope: Scope) -> Caller | None:
        found = self._recall(_secret(credentials))
        if found is None or found.caller.rate is not None:
            return None
        if scope not in found.scopes:
            raise _scope_missing(scope)
        return found.caller

    async def admit(self, credentials: Sequence[str], scope: Scope) -> Caller:
        found = await self._found(_secret(credentials))
        caller = await _limited(found.caller, self._limits)
        if scope not in found.scopes:  # counted all the same: else a key could ask without end for what it may not do
            raise _scope_missing(scope, caller.headers)
        return caller

    async def count(self, credentials: Sequence[str]) -> Mapping[str, str]:
        try:
            found = await self._found(_secret(credentials))
        except (Problem, StoreUnavailable):  # no key, or none that is known to be valid: nothing to count against
            return {}
        return (await _limited(found.caller, self._limits)).headers

    async def _found(self, secret: str) -> _CachedKey:
        return self._recall(secret) or await self._find(secret)

    def _recall(self, secret: str) -> _CachedKey | None:
        found = self._let_in.get(secret)
        if found is None or time.monotonic() >= found.until_s:
            return None
        self._used.add(found.caller.key)
        return found

    async def _find(self, secret: str) -> _CachedKey:
        prefix = api_key.prefix_of(secret)
        if prefix is None:
            raise _invalid("this is no API key")
        asked_s = time.monotonic()  # before the question: what is known must not be older than it says
        refused = self._refused.get(secret)
        if refused is not None and asked_s < refused.until_s:
            raise _invalid(refused.detail)
        key = await self._store.find(prefix)
        detail = self._against(secret, key)
        if key is None or detail is not None:
            detail = detail or _UNKNOWN
            _keep(self._refused, secret, _RefusedSecret(detail, asked_s + self._fresh_s))
            raise _invalid(detail)
        caller = Caller(key.account_id, key.prefix, key.rate or self._rate, actor=f"{API} {key.prefix}")
        left_s = math.inf if key.left_s is None else key.left_s
        found = _CachedKey(caller, key.scopes, asked_s + min(self._fresh_s, left_s))
        _keep(self._let_in, secret, found)
        self._used.add(key.prefix)
        return found

    def _against(self, secret: str, key: StoredKey | None) -> str | None:
        """The reason to refuse this secret, None if there is none."""
        # One answer for a name that does not exist and for a wrong secret: there is nothing to be learned from it.
        if key is None or not api_key.matches(secret, key.secret_hash):
            return _UNKNOWN
        if key.revoked:
            return "this API key was revoked"
        if key.left_s is not None and key.left_s <= 0:
            return "this API key has expired"
        return None if key.mode is self._mode else f"this is a {key.mode} key, and a {self._mode} system"

    async def run(self, stop: asyncio.Event) -> None:
        """Note when keys were used, until told to stop, and once more then."""
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(NOTE_USE_S):
                    await stop.wait()
            await self.run_once()
        await self.run_once()

    def evict(self) -> int:
        """Forget the keys of which Postgres would have to be asked again; return how many."""
        now_s = time.monotonic()
        before = len(self._let_in) + len(self._refused)
        self._let_in = {secret: one for secret, one in self._let_in.items() if now_s < one.until_s}
        self._refused = {secret: one for secret, one in self._refused.items() if now_s < one.until_s}
        return before - len(self._let_in) - len(self._refused)

    async def run_once(self) -> int:
        """For how many keys it was written that they were used. Nobody waits for it, nor is it lost if Postgres is away."""
        self.evict()
        used, self._used = self._used, set()
        try:
            return await self._store.touch(used) if used else 0
        except StoreUnavailable:
            self._used |= used
            return 0


async def _limited(caller: Caller, limits: RateLimits | None) -> Caller:
    """The same caller, counted."""
    if caller.rate is None or limits is None:
        return caller
    return replace(caller, headers=await limits.take(caller.key, caller.rate))


def _keep(known: dict[str, T], secret: str, found: T) -> None:
    """Remember it as the newest, in the place of the oldest where there is no room."""
    known.pop(secret, None)
    if len(known) >= MAX_KNOWN:
        del known[next(iter(known))]
    known[secret] = found


def _secret(credentials: Sequence[str]) -> str:
    """The key as a Bearer token, or as the user of HTTP Basic (where a password is not looked at)."""
    if not credentials:
        raise _missing("send the header Authorization: Bearer sk_…")
    if len(credentials) > 1:
        raise _invalid("send one Authorization header")
    if credentials[0].startswith("Bearer sk_"):  # as nearly all do
        return credentials[0][7:].rstrip()
    scheme, _, value = credentials[0].strip().partition(" ")
    match scheme.lower():
        case "bearer":
            return value.strip()
        case "basic":
            with contextlib.suppress(binascii.Error, UnicodeDecodeError, ValueError):
                return b64decode(value.strip(), validate=True).decode("ascii").partition(":")[0]
            raise _invalid("these credentials are not base64")
        case _:
            raise _missing("send the key as Authorization: Bearer sk_…, or as the user of HTTP Basic")


def _missing(detail: str) -> Problem:
    return Problem(HTTPStatus.UNAUTHORIZED, "key_missing", detail, headers={"WWW-Authenticate": _CHALLENGE})


def _invalid(detail: str) -> Problem:
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

# The two ways to send a key, in OpenAPI's words.
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The API key, as a token."},
    "basic": {"type": "http", "scheme": "basic", "description": "The API key as the user, without a password."},
}
