"""Fixtures of the payment half: an API on real servers, whose answers are compared with its document."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.okane.charging import desk  # noqa: F401 - a fixture of several modules
from tests.okane.faulty_proxy import client, way  # noqa: F401 - fixtures of several modules
from tests.okane.served_api import Api, serve_api


@pytest.fixture
async def api(request: pytest.FixtureRequest, database_url: str, redis_url: str) -> AsyncIterator[Api]:
    """With the default settings, or those of the test's indirect parameter."""
    async for one in serve_api(database_url, redis_url, **getattr(request, "param", {})):
        yield one
