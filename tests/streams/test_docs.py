from __future__ import annotations

import asyncio
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import streams
from streams.prometheus import PrometheusMetrics
from streams.testing import MemoryQueue
from tests.streams.servers import Server

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "streams.md"
README = ROOT / "README.md"
# Modules of values that the library hands out or takes: their fields are no options.
VALUES = {
    f"streams.{name}" for name in ("message", "outcome", "draft", "entry", "errors", "inspector", "cluster_state")
}


async def test_the_readmes_example_runs_as_it_is_written(own_server: Callable[..., Server]) -> None:
    example = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert example is not None
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "-c",
        example[1],
        cwd=ROOT,
        env=os.environ | {"REDIS_URL": own_server().url},
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    assert (output, process.returncode) == (b"sending to ada@example.org\n", 0)


def test_the_guide_names_only_what_there_is() -> None:
    names = set(re.findall(r"`([A-Z][A-Za-z]+)\(", GUIDE.read_text()))
    assert names
    assert names - {"PrometheusMetrics"} <= set(streams.__all__)


def test_the_library_imports_without_prometheus_and_without_okane() -> None:
    """A user of `streams` alone need not install them."""
    check = "import sys, streams, streams.testing; print({'okane', 'prometheus_client'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, check=True)
    assert found.stdout == b"set()\n"


def _documented_options() -> dict[str, list[str]]:
    rows = re.search(r"^## Options\n.*?(?=^## )", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    assert rows is not None
    found: dict[str, list[str]] = {}
    for where, option in re.findall(r"^\| (?:`(\w+)`)? ?\| `(\w+)` \|", rows[0], re.MULTILINE):
        found.setdefault(where or list(found)[-1], []).append(option)
    return found


def test_the_guide_has_every_option_that_has_a_default() -> None:
    public: list[Any] = [getattr(streams, name) for name in streams.__all__]
    makes_something = [
        each
        for each in public
        if inspect.isclass(each) and each.__module__.startswith("streams.") and each.__module__ not in VALUES
    ]
    found = {}
    parts: list[Any] = [streams.connect, *makes_something, PrometheusMetrics, MemoryQueue]
    for each in parts:
        options = inspect.signature(each).parameters.values()
        if names := [one.name for one in options if one.default is not inspect.Parameter.empty]:
            found[each.__name__] = sorted(names)
    assert {where: sorted(options) for where, options in _documented_options().items()} == found
