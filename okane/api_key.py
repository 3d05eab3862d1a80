"""API keys: `sk_test_` or `sk_live_`, twelve characters that name the key, and 256 random bits. Pure.

Guarantee: only its owner has the secret. okane stores its prefix, to find it, and its SHA-256: 256 random bits cannot be
guessed, so a slower hash is not needed.
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

ACCOUNT = "default"  # of the key that `okane up` creates, and of every request where no keys are used

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_SECRET = re.compile(r"(sk_(?:test|live)_[0-9a-z]{12})_[0-9a-f]{64}", re.ASCII)
_ACCOUNT_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)


class Mode(enum.StrEnum):
    """The mode of a key: test money or real money."""

    TEST = "test"
    LIVE = "live"


class Scope(enum.StrEnum):
    """A permission of a key."""

    READ = "read"
    WRITE = "write"
    OPERATE = "operate"
    WEBHOOKS = "webhooks"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A new key, the only form in which its secret is known."""

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
    """One row of `api_keys`. Where `rate` is None the setting for all keys applies."""

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
    """Return the prefix of a secret, which names its key; None if it cannot be a secret."""
    match = _SECRET.fullmatch(secret)
    return match[1] if match is not None else None


def is_prefix(text: str) -> bool:
    """Tell whether a text has the form of a prefix."""
    return re.fullmatch(r"sk_(?:test|live)_[0-9a-z]{12}", text, re.ASCII) is not None


def hash_of(secret: str) -> bytes:
    """Return the hash of a secret, which is stored."""
    return hashlib.sha256(secret.encode()).digest()


def matches(secret: str, secret_hash: bytes) -> bool:
    """Tell whether a secret has this hash, in constant time."""
    return hmac.compare_digest(hash_of(secret), secret_hash)


def check_account_id(text: str) -> str:
    """Return the name of an account. Raises ValueError."""
    if not _ACCOUNT_ID.fullmatch(text):
        raise ValueError("an account is 1 to 64 letters, digits, `.`, `_` or `-`, the first a letter or digit")
    return text


def parse_scopes(text: str) -> Sequence[Scope]:
    """Parse scopes like `read,write`. Raises ValueError."""
    try:
        return [Scope(word.strip()) for word in text.split(",")]
    except ValueError:
        raise ValueError(f"scopes are some of {', '.join(Scope)}, separated by commas") from None
