"""The signature of a request, as Standard Webhooks defines it: `v1` (HMAC-SHA256), and `v1a` (ed25519) beside it.

It covers the id, the timestamp and the bytes of the body. Pure: keys and time are arguments.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from okane.errors import SetupError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MIN_SECRET_BYTES = 24  # by the specification
MAX_SECRET_BYTES = 64


class PrivateKey:
    """An ed25519 key, made from its seed of 32 bytes. Raises SetupError without the package `cryptography`."""

    __slots__ = ("_key",)

    def __init__(self, seed: bytes) -> None:
        self._key = _ed25519(seed)

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)

    def public_bytes(self) -> bytes:
        """Return the 32 bytes of the public key."""
        return self._key.public_key().public_bytes_raw()


@dataclass(frozen=True, slots=True, repr=False)
class SigningKeys:
    """The keys that sign a request: its receiver may have any one of them."""

    secrets: tuple[bytes, ...]
    private_keys: tuple[PrivateKey, ...] = ()


def sign(
    secrets: Sequence[bytes], event_id: str, timestamp_s: int, body: bytes, private_keys: Sequence[PrivateKey] = ()
) -> str:
    """Return the value of `webhook-signature`: a signature by each key, in their order, those of `v1` first.

    Raises ValueError for a secret of a length that receivers may refuse.
    """
    message = b"%s.%d.%s" % (event_id.encode("ascii"), timestamp_s, body)
    signatures = []
    for secret in secrets:
        if not MIN_SECRET_BYTES <= len(secret) <= MAX_SECRET_BYTES:
            raise ValueError(f"a secret must have {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes")
        signatures.append(b"v1," + b64encode(hmac.digest(secret, message, "sha256")))
    signatures += [b"v1a," + b64encode(key.sign(message)) for key in private_keys]
    return b" ".join(signatures).decode("ascii")


def has_asymmetric() -> bool:
    """Return True if `v1a` can be signed: the package `cryptography` is installed (`okane[asymmetric]`)."""
    try:
        _ed25519(bytes(32))
    except SetupError:
        return False
    return True


def _ed25519(seed: bytes) -> Ed25519PrivateKey:
    try:
        # An extra: loading it takes 30 ms and 10 MB in every process.
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
    except ImportError:
        raise SetupError("asymmetric signatures need the extra okane[asymmetric]: the package cryptography") from None
    return Ed25519PrivateKey.from_private_bytes(seed)
