"""Run a gateway's simulator for tests: in a Python and a process of its own, on a free port, ended by its pid.

Where no Python on this machine can run it, the test is skipped by name; in CI such a skip fails (`tests/conftest.py`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from okane.local.server import Server
from okane.local.simulator_environment import NoPythonError, SimulatorPackages


@contextlib.contextmanager
def running(server: Server) -> Iterator[None]:
    """Run a simulator (see `okane.local.simulator_server`) inside the block; its packages are installed on first use."""
    try:
        server.start()
    except NoPythonError as error:
        pytest.skip(str(error))
    try:
        yield
    finally:
        server.stop()


def installed(packages: SimulatorPackages) -> Path:
    """Return the Python of a simulator's environment. Skips the test where no Python can run it."""
    try:
        return packages.prepare()
    except NoPythonError as error:
        pytest.skip(str(error))
