"""What an API key is: `sk_test_` or `sk_live_`, twelve characters that name it, and 256 random bits. Pure.

Promise: the secret is in nobody's hands but its owner's. What is kept is its prefix, to find it by, and its SHA-256: against
256 random bits no guess is cheap enough to need a slower hash.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from okane.rate import Rate

ACCOUNT = "default"  # of the key that `okane up` makes, and of everybody where there are no keys

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_SECRET = re.compile(r"(sk_(?:test|live)_[0-9a-z]{12})_[0-9a-f]{64}", re.ASCII)
_ACCOUNT_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)


class Mode(enum.StrEnum):
    """Whose money it is: play money, or somebody's."""

    TEST = "test"
    LIVE = "live"


class Scope(enum.StrEnum):
    """What a key may do."""

    READ = "read"
    WRITE = "write"
    OPERATE = "operate"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key at the only moment when its secret is known."""

    secret: str

    @classmethod
    def make(cls, mode: Mode) -> NewKey:
        name = "".join(secrets.choice(_ALPHABET) for _ in range(12))
        return cls(f"sk_{mode.value}_{name}_{secrets.token_hex(32)}")

    @property
    def prefix(self) -> str:
        return self.secret.rpartition("_")[0]

    @property
    def hash(self) -> bytes:
        return hash_of(self.secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """One row of `api_keys`. `rate` is None where the setting for all counts."""

    prefix: str
    account_id: str
    mode: Mode
    scopes: frozenset[Scope]
    name: str
    rate: Rate | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


def prefix_of(secret: str) -> str | None:
    """Which key this would be the secret of; None if it cannot be one."""
    match = _SECRET.fullmatch(secret)
    return match[1] if match is not None else None


def is_prefix(text: str) -> bool:
    """Tell whether this is the part of a key that names it."""
    return re.fullmatch(r"sk_(?:test|live)_[0-9a-z]{12}", text, re.ASCII) is not None


def hash_of(secret: str) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).digest()


def matches(secret: str, secret_hash: bytes) -> bool:
    """Whether this is the secret. Takes as long when it is nearly right as when it is not."""
    return hmac.compare_digest(hash_of(secret), secret_hash)


def check_account_id(text: str) -> str:
    """The name of an account. Raises ValueError."""
    if not _ACCOUNT_ID.fullmatch(text):
        raise ValueError("an account is 1 to 64 letters, digits, `.`, `_` or `-`, the first a letter or digit")
    return text


def parse_scopes(text: str) -> Sequence[Scope]:
    """`read,write`. Raises ValueError."""
    try:
        return [Scope(word.strip()) for word in text.split(",")]
    except ValueError:
        raise ValueError(f"scopes are some of {', '.join(Scope)}, separated by commas") from None
