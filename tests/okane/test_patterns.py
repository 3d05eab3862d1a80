"""The regular expressions of the project match the same on every Python that it supports."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import okane
import streams

SINGLE = {"ANY", "IN", "LITERAL", "NOT_LITERAL"}


def modules(package: ModuleType) -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        # A program runs when it is loaded, a migration under its tool, and the simulator of Stripe beside other packages.
        if "__main__" not in found.name and not found.name.startswith(
            ("okane.store.migrations", "okane.local.stripe_")
        ):
            yield importlib.import_module(found.name)


def patterns() -> dict[str, re.Pattern[Any]]:
    return {
        f"{module.__name__}.{name}": value
        for package in (okane, streams)
        for module in modules(package)
        for name, value in vars(module).items()
        if isinstance(value, re.Pattern)
    }


def possessive_groups(parsed: Any) -> Iterator[Any]:
    """Yield what a pattern repeats possessively, except for single characters."""
    for part in parsed:
        if isinstance(part, tuple) and str(part[0]) == "POSSESSIVE_REPEAT":
            [*repeated] = part[1][2]
            if len(repeated) != 1 or str(repeated[0][0]) not in SINGLE:
                yield part
        if hasattr(part, "__getitem__"):  # a parsed pattern within has no `__iter__`
            yield from possessive_groups(part)


def parse(pattern: re.Pattern[Any]) -> Any:
    # The parsed form has no public name; the flags that a pattern of text has by itself are none for the parser.
    return importlib.import_module("re._parser").parse(pattern.pattern, pattern.flags)


@pytest.mark.parametrize("text", [r"(?:a|bc)*+", r"x(?:ab)++", r"(y(?:a|bc)?+)"])
def test_a_possessive_group_is_found(text: str) -> None:
    assert list(possessive_groups(parse(re.compile(text))))


def test_no_pattern_repeats_a_group_possessively() -> None:
    """Python before 3.11.5 ends such a match behind a last turn that failed (gh-106052); atomic groups do not."""
    found = patterns()
    assert "okane.api.batch_items._INSIDE_ITEMS" in found
    assert [name for name, pattern in found.items() if list(possessive_groups(parse(pattern)))] == []
