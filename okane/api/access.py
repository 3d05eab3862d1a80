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
from typing import Protocol

import structlog

from okane import api_key
from okane.api.problems import Problem
from okane.api.rate_limit import RateLimits
from okane.api_key import ACCOUNT, Mode, Scope
from okane.errors import StoreUnavailable
from okane.rate import Rate
from okane.store import API, ApiKeyStore

log = structlog.get_logger("okane.api")

FRESH_S = 5.0  # how long a key that was let in is not asked about again
MAX_KNOWN = 10_000  # keys that are remembered at a time
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


class Access(Protocol):
    """Lets requests in."""

    def known(self, credentials: Sequence[str], scope: Scope) -> Caller | None:
        """`admit` for those about whom nobody has to be asked; None for the others."""
        ...

    async def admit(self, credentials: Sequence[str], scope: Scope) -> Caller:
        """The caller with these `Authorization` headers, who may do what takes this scope, and as often as this.

        Raises Problem if it may not, StoreUnavailable if that cannot be told.
        """
        ...


class Everybody:
    """`OKANE_AUTH=none`: whoever reaches the port."""

    def __init__(self, limits: RateLimits | None = None, *, rate: Rate | None = None) -> None:
        self._limits = limits
        self._caller = Caller(ACCOUNT, ACCOUNT, rate)

    def known(self, _credentials: Sequence[str], _scope: Scope) -> Caller | None:
        return self._caller if self._caller.rate is None else None

    async def admit(self, _credentials: Sequence[str], _scope: Scope) -> Caller:
        return await _limited(self._caller, self._limits)


@dataclass(slots=True)
class _LetIn:
    """A key that was found and checked, and until when (time.monotonic()) nobody is asked about it again."""

    caller: Caller
    scopes: frozenset[Scope]
    until_s: float


class KeyHolders:
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
        # By what was sent. To look up a text in a dict tells nobody how much of it is right: what is compared are hashes
        # under a secret of this process, and the texts only if those are equal.
        self._let_in: dict[str, _LetIn] = {}
        self._used: set[str] = set()

    def known(self, credentials: Sequence[str], scope: Scope) -> Caller | None:
        found = self._recall(credentials, scope)
        return None if found is None or found.rate is not None else found

    async def admit(self, credentials: Sequence[str], scope: Scope) -> Caller:
        caller = self._recall(credentials, scope) or await self._find(credentials, scope)
        return await _limited(caller, self._limits)

    def _recall(self, credentials: Sequence[str], scope: Scope) -> Caller | None:
        found = self._let_in.get(credentials[0]) if len(credentials) == 1 else None
        if found is None or time.monotonic() >= found.until_s or scope not in found.scopes:
            return None
        self._used.add(found.caller.key)
        return found.caller

    async def _find(self, credentials: Sequence[str], scope: Scope) -> Caller:
        secret = _secret(credentials)
        prefix = api_key.prefix_of(secret)
        if prefix is None:
            raise _invalid("this is no API key")
        asked_s = time.monotonic()  # before the question: what is known must not be older than it says
        key = await self._store.find(prefix)
        # One answer for a name that does not exist and for a wrong secret: there is nothing to be learned from it.
        if key is None or not api_key.matches(secret, key.secret_hash):
            raise _invalid("there is no such API key")
        left_s = math.inf if key.left_s is None else key.left_s
        if key.revoked or left_s <= 0:
            raise _invalid("this API key was revoked" if key.revoked else "this API key has expired")
        if key.mode is not self._mode:
            raise _invalid(f"this is a {key.mode} key, and a {self._mode} system")
        if scope not in key.scopes:
            raise _scope_missing(scope)
        caller = Caller(key.account_id, key.prefix, key.rate or self._rate, actor=f"{API} {key.prefix}")
        self._keep(credentials[0], _LetIn(caller, key.scopes, asked_s + min(self._fresh_s, left_s)))
        self._used.add(key.prefix)
        return caller

    def _keep(self, sent: str, found: _LetIn) -> None:
        self._let_in.pop(sent, None)
        if len(self._let_in) >= MAX_KNOWN:
            del self._let_in[next(iter(self._let_in))]
        self._let_in[sent] = found

    async def run(self, stop: asyncio.Event) -> None:
        """Note when keys were used, until told to stop, and once more then."""
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(NOTE_USE_S):
                    await stop.wait()
            await self.run_once()
        await self.run_once()

    async def run_once(self) -> int:
        """For how many keys it was written that they were used. Nobody waits for it, nor is it lost if Postgres is away."""
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


def _secret(credentials: Sequence[str]) -> str:
    """The key as a Bearer token, or as the user of HTTP Basic (where a password is not looked at)."""
    if not credentials:
        raise _missing("send the header Authorization: Bearer sk_…")
    if len(credentials) > 1:
        raise _invalid("send one Authorization header")
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


def _scope_missing(scope: Scope) -> Problem:
    headers = {"WWW-Authenticate": f'{_CHALLENGE}, error="insufficient_scope", scope="{scope.value}"'}
    detail = f"this takes a key with the scope {scope.value}"
    return Problem(HTTPStatus.FORBIDDEN, "scope_missing", detail, headers=headers)


_CHALLENGE = 'Bearer realm="okane"'

# The two ways to send a key, in OpenAPI's words.
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The API key, as a token."},
    "basic": {"type": "http", "scheme": "basic", "description": "The API key as the user, without a password."},
}
