"""The files under test, and the check that the settings in them exist."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from pydantic import AliasChoices

from okane.config import Settings, parse_duration

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CLOSING = timedelta(seconds=10)  # the time that a process may take after its drain


def loaded(path: Path) -> Any:
    """Return the document in a YAML file."""
    return yaml.safe_load(path.read_text())


SERVICES: dict[str, dict[str, Any]] = loaded(DEPLOY / "compose.yaml")["services"]
OURS = sorted(name for name, service in SERVICES.items() if service["image"].startswith("okane:"))


def settings_named() -> frozenset[str]:
    """Return every name that a setting has in the environment."""
    names = {f"OKANE_{field.upper()}" for field in Settings.model_fields}
    for info in Settings.model_fields.values():
        if isinstance(info.validation_alias, AliasChoices):
            names |= {str(choice) for choice in info.validation_alias.choices}
    return frozenset(names)


def check_settings(env: Mapping[str, str], *, besides: Iterable[str] = ()) -> Settings:
    """Return the settings that a process reads from `env`, after a check that it has only settings, and `besides`."""
    known = settings_named()
    assert set(env) <= known | set(besides)
    before = dict(os.environ)
    try:
        os.environ.clear()
        os.environ.update(env)
        return Settings(_env_file=None)
    finally:
        os.environ.clear()
        os.environ.update(before)


def duration(text: str) -> timedelta:
    value = parse_duration(text)
    assert isinstance(value, timedelta)
    return value


def drain_needed(settings: Settings) -> timedelta:
    """Return the time between SIGTERM and kill -9 that a supervisor must allow."""
    return settings.lame_duck + settings.drain + CLOSING


def substituted(value: str, given: Mapping[str, str] | None = None) -> str:
    """Replace `${NAME:-default}` and `${NAME:?message}` by the value given for NAME, else by its default or `set-NAME`."""
    given = given or {}
    value = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda match: given.get(match[1]) or match[2], value)
    return re.sub(r"\$\{(\w+):\?[^}]*\}", lambda match: given.get(match[1], f"set-{match[1]}"), value)


def pinned(image: str) -> bool:
    """Return True for an image with a version of at least two numbers, or with a digest."""
    return "@sha256:" in image or re.fullmatch(r".+:v?\d+(\.\d+)+[\w.-]*", image) is not None
