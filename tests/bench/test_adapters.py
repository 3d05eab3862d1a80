"""The comparison of the adapters' CPU."""

from __future__ import annotations

from bench.adapters import ADAPTERS, measure


def test_each_adapter_understands_its_canned_answer() -> None:
    """`measure` asserts the result of each call."""
    [measured] = measure(rounds=1, calls=64)
    assert list(measured) == [adapter.name for adapter in ADAPTERS]
    assert min(measured.values()) > 0
