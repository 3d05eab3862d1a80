"""The names of the library, and the parts that load without redis-py."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import streams

ROOT = Path(__file__).parents[2]
PURE = (
    "streams.batcher",
    "streams.clock",
    "streams.coalesce",
    "streams.draft",
    "streams.entry",
    "streams.errors",
    "streams.failpoints",
    "streams.handling",
    "streams.histogram",
    "streams.keys",
    "streams.lanes",
    "streams.message",
    "streams.metrics",
    "streams.options",
    "streams.outcome",
    "streams.retry",
    "streams.testing",
    "streams.values",
    "okane.config",
    "okane.currencies",
    "okane.http.pool",
    "okane.lanes",
    "okane.metrics",
    "okane.payment",
    "okane.providers.exchange",
    "okane.providers.okane_http",
)


def test_the_pure_modules_load_without_redis() -> None:
    """One after the other in one process, since a process for each would take a minute."""
    check = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    assert 'redis' not in sys.modules, name"
    )
    found = subprocess.run([sys.executable, "-c", check, *PURE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize("name", streams.__all__)
def test_every_public_name_resolves(name: str) -> None:
    found = getattr(streams, name)
    assert getattr(importlib.import_module(f"streams.{streams._MODULE_BY_NAME[name]}"), name) is found
    assert name in dir(streams)


def test_public_names_are_listed_once() -> None:
    assert sorted(streams._MODULE_BY_NAME) == sorted(streams.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = streams.Nothing
