"""The keys of endpoints, derived from the master secret: the database holds none, so reading it signs nothing.

Guarantee: the same master, endpoint and generation always give the same key. No error repeats a part of a master.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol
from uuid import UUID

from okane.api_key import Mode
from okane.errors import SetupError
from okane.providers.secrets import BadSecret, Secret
from okane.webhooks.signing import PrivateKey, SigningKeys

SETTING = "OKANE_WEBHOOK_MASTER"
MIN_MASTER_CHARACTERS = 32  # of `openssl rand -hex 16`, with 128 random bits; docs recommend twice as many
MAX_MASTERS = 4  # each one doubles the signatures of a request

_SYMMETRIC = b"okane webhook v1\0"
_ASYMMETRIC = b"okane webhook v1a\0"


class KeyOwner(Protocol):
    """The part of an endpoint that its keys depend on."""

    @property
    def id(self) -> UUID: ...
    @property
    def key_generation(self) -> int: ...
    @property
    def older_key_until(self) -> datetime | None: ...
    @property
    def asymmetric(self) -> bool: ...


@dataclass(frozen=True, slots=True, repr=False)
class Masters:
    """The master secrets, the current one first. The others still sign, for receivers that have their keys."""

    values: tuple[bytes, ...]

    @property
    def current(self) -> bytes:
        """The master whose keys the API shows."""
        return self.values[0]

    def __repr__(self) -> str:
        return f"Masters({len(self.values)})"


def load_masters(setting: str | None, *, folder: Path = Path()) -> Masters | None:
    """Return the masters of `OKANE_WEBHOOK_MASTER`, or None if it is unset.

    It holds masters separated by commas, the current one first; `file:PATH` (relative to `folder`) stands for those in a
    file. Raises SetupError for a master that is too short, for too many, and for a file that cannot be used.
    """
    if setting is None:
        return None
    try:
        found = [master for source in setting.split(",") for master in _read(source.strip(), folder)]
    except BadSecret as error:
        raise SetupError(f"{SETTING}: {error}") from None
    if any(len(master) < MIN_MASTER_CHARACTERS for master in found):
        raise SetupError(
            f"{SETTING}: a master needs {MIN_MASTER_CHARACTERS} characters or more, like those of `openssl rand -hex 32`"
        )
    if len(found) > MAX_MASTERS:
        raise SetupError(f"{SETTING}: holds more than {MAX_MASTERS} masters")
    if len(set(found)) < len(found):
        raise SetupError(f"{SETTING}: holds the same master twice")
    return Masters(tuple(master.encode("ascii") for master in found))


def secret(master: bytes, endpoint_id: UUID, generation: int) -> str:
    """Return the secret of an endpoint, as receivers configure it: `whsec_` and base64."""
    return "whsec_" + b64encode(_derived(master, _SYMMETRIC, endpoint_id, generation)).decode("ascii")


def public_key(master: bytes, endpoint_id: UUID, generation: int) -> str:
    """Return the public key of an endpoint, as receivers configure it for `v1a`: `whpk_` and base64.

    Raises SetupError without the package `cryptography`.
    """
    key = PrivateKey(_derived(master, _ASYMMETRIC, endpoint_id, generation))
    return "whpk_" + b64encode(key.public_bytes()).decode("ascii")


def signing_keys(masters: Masters, owner: KeyOwner, *, now: datetime) -> SigningKeys:
    """Return the keys that sign a request at `now`: of each master the newest, then those of the older generation.

    Raises SetupError for an asymmetric endpoint without the package `cryptography`.
    """
    generations = [owner.key_generation]
    if owner.older_key_until is not None and now < owner.older_key_until and owner.key_generation > 1:
        generations.append(owner.key_generation - 1)
    pairs = [(master, generation) for generation in generations for master in masters.values]
    secrets = tuple(_derived(master, _SYMMETRIC, owner.id, generation) for master, generation in pairs)
    if not owner.asymmetric:
        return SigningKeys(secrets)
    return SigningKeys(
        secrets, tuple(PrivateKey(_derived(master, _ASYMMETRIC, owner.id, generation)) for master, generation in pairs)
    )


def _derived(master: bytes, purpose: bytes, endpoint_id: UUID, generation: int) -> bytes:
    return hmac.digest(master, purpose + endpoint_id.bytes + generation.to_bytes(4, "big"), "sha256")


def _read(source: str, folder: Path) -> list[str]:
    """Return the masters of one part of the setting. Raises BadSecret."""
    # The setting itself is a secret store, as `env:NAME` is for a providers file: a literal is no less in mode live.
    text = Secret(source, where=SETTING, mode=Mode.TEST, folder=folder)()
    if not source.startswith("file:"):
        return [text]
    return [Secret(part.strip(), where=SETTING, mode=Mode.TEST, folder=folder)() for part in text.split(",")]
