"""The parts of a bench that `--only` names by their letters."""

from __future__ import annotations

from collections.abc import Mapping


def chosen(only: str, parts: Mapping[str, str]) -> tuple[str, ...]:
    """Return the letters in `only`, separated by commas. Raises ValueError for one that is no part."""
    letters = tuple(part.strip() for part in only.split(",") if part.strip())
    if unknown := set(letters) - set(parts):
        raise ValueError(f"there is no part {', '.join(sorted(unknown))}: they are {', '.join(parts)}")
    return letters
