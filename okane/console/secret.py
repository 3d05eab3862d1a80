"""The secret that signs sessions: `OKANE_CONSOLE_SECRET`, or one that ends with the process."""

from __future__ import annotations

from pathlib import Path

from okane.api_key import Mode
from okane.console.session import Signer
from okane.errors import SetupError
from okane.providers.secrets import BadSecret, Secret

SETTING = "OKANE_CONSOLE_SECRET"
MIN_CHARACTERS = 32  # of `openssl rand -hex 16`, with 128 random bits; docs recommend twice as many
MAX_SECRETS = 4


def load_signer(setting: str | None, *, folder: Path = Path()) -> Signer:
    """Return the signer with the secrets of the setting, the current one first; without a setting, with a random one.

    `file:PATH` (relative to `folder`) stands for the secret in a file. Raises SetupError, which repeats no part of a secret.
    """
    if setting is None:
        return Signer()
    try:
        found = [
            # The setting itself is a secret store, as `env:NAME` is for a providers file: a literal is no less in mode live.
            Secret(source.strip(), where=SETTING, mode=Mode.TEST, folder=folder)()
            for source in setting.split(",")
        ]
    except BadSecret as error:
        raise SetupError(f"{SETTING}: {error}") from None
    if any(len(one) < MIN_CHARACTERS for one in found):
        raise SetupError(f"{SETTING}: needs {MIN_CHARACTERS} characters or more, like those of `openssl rand -hex 32`")
    if len(found) > MAX_SECRETS:
        raise SetupError(f"{SETTING}: holds more than {MAX_SECRETS} secrets")
    return Signer(*(one.encode() for one in found))
