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
    "okane.providers.okane_http",
)


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_loads_without_redis(name: str) -> None:
    check = f"import sys, {name}; print('redis' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, check=True)
    assert found.stdout == b"False\n"


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
