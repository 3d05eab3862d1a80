"""The tables of docs/, read for comparison with the code."""

from __future__ import annotations

import re
from pathlib import Path

from okane.config import Settings

ROOT = Path(__file__).parents[2]


OPERATIONS = (ROOT / "docs" / "operations.md").read_text()


def _section(document: str, heading: str) -> str:
    """Return the text under this heading."""
    return document.split(f"\n## {heading}\n")[1].split("\n## ", maxsplit=1)[0]


def table_names(document: str, heading: str) -> set[str]:
    """Return the names between backticks in the first two columns of the table under this heading."""
    section = _section(document, heading)
    rows = [row.split("|")[1:3] for row in section.partition("|---")[2].splitlines() if row.startswith("|")]
    return {name for row in rows for cell in row for name in re.findall(r"`([^`]+)`", cell)}


def _setting(field: str) -> str:
    """Return the name of a setting in the environment: that of the older systems if it has one, else `OKANE_…`."""
    alias = Settings.model_fields[field].validation_alias
    return f"OKANE_{field.upper()}" if alias is None else str(alias.choices[-1])  # type: ignore[union-attr]  # always AliasChoices


def setting_names() -> set[str]:
    return {_setting(field) for field in Settings.model_fields}
