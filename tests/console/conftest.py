"""The console on the test's own database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.console.served_console import Console, serve_console


@pytest.fixture
async def console(database_url: str, redis_url: str) -> AsyncIterator[Console]:
    """A served console with the default settings: `await console.logged_in(Scope.READ)` is a client with a session."""
    async with serve_console(database_url, redis_url) as served:
        yield served
