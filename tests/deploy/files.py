"""The files under test, and what they may name: settings that exist."""

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
CLOSING = timedelta(seconds=10)  # what a process may take beyond its drain


def loaded(path: Path) -> Any:
    """The document in a YAML file."""
    return yaml.safe_load(path.read_text())


def settings_named() -> frozenset[str]:
    """Every name that a setting has in the environment."""
    names = {f"OKANE_{field.upper()}" for field in Settings.model_fields}
    for info in Settings.model_fields.values():
        if isinstance(info.validation_alias, AliasChoices):
            names |= {str(choice) for choice in info.validation_alias.choices}
    return frozenset(names)


def check_settings(env: Mapping[str, str], *, besides: Iterable[str] = ()) -> Settings:
    """The settings that a process would read from `env`, in which nothing but settings may stand, and `besides`."""
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
    """How long a supervisor has to wait after SIGTERM before it may kill."""
    return settings.lame_duck + settings.drain + CLOSING


def pinned(image: str) -> bool:
    """Whether an image is named with a version of at least two numbers, or by its digest."""
    return "@sha256:" in image or re.fullmatch(r".+:v?\d+(\.\d+)+[\w.-]*", image) is not None
