"""The providers file and the secrets with which okane uses the Stripe simulator, in the data folder of `okane up`."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

TEST_CARD = "pm_card_visa"
_PROVIDERS = """# Written by `okane up --stripe` at every start.
[providers.stripe]
kind = "stripe"
base_url = "{base_url}"
api_key = "file:api-key"
webhook_secrets = ["file:webhook-secret"]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenConfiguration:
    """The files that were written."""

    providers_file: Path
    webhook_secret: Path


def write_configuration(folder: Path, *, base_url: str) -> WrittenConfiguration:
    """Write the files into `folder`, readable by their owner only; secrets that are there stay."""
    folder.mkdir(mode=0o700, exist_ok=True)
    _write_secret(folder / "api-key", f"sk_test_{secrets.token_hex(16)}")
    _write_secret(folder / "webhook-secret", f"whsec_{secrets.token_hex(16)}")
    providers_file = folder / "providers.toml"
    providers_file.write_text(_PROVIDERS.format(base_url=base_url))
    return WrittenConfiguration(providers_file=providers_file, webhook_secret=folder / "webhook-secret")


def _write_secret(path: Path, secret: str) -> None:
    if not path.exists():
        draft = path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{secret}\n")
        draft.replace(path)
