"""Benchmarks whose okane processes are forked: the tests run each part, and measure nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench import system
from tests.forked_process import ForkedOkaneProcess


@pytest.fixture(scope="package", autouse=True)
def forked_processes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(system, "OkaneProcess", ForkedOkaneProcess)
        yield
