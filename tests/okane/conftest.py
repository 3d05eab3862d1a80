"""Fixtures of the payment half: an API on real servers, whose answers are compared with its document."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from okane.api import rate_limit
from okane.intake import wake_sending
from okane.redis import provider_limit
from okane.store import PaymentStore
from tests.okane.charging import desk  # noqa: F401 - a fixture of several modules
from tests.okane.faulty_proxy import client, way  # noqa: F401 - fixtures of several modules
from tests.okane.served_api import Api, serve_api
from tests.okane.stored_payments import GRACE, LEASE

PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def patience_with_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a Redis of a busy machine answer late: a test that means it to be away says so itself.

    Otherwise a stall of half a second makes an API count alone, as it should, and the test of the shared count fails.
    """
    monkeypatch.setattr(rate_limit, "TIMEOUT_S", PATIENCE_S)
    monkeypatch.setattr(provider_limit, "REDIS_PATIENCE_S", PATIENCE_S)
    monkeypatch.setattr(wake_sending, "WAKE_TIMEOUT_S", PATIENCE_S)


@pytest.fixture
async def payments(database_url: str) -> AsyncIterator[PaymentStore]:
    """The store of payments."""
    store = PaymentStore(database_url, actor="test", lease=LEASE, grace=GRACE)
    yield store
    await store.aclose()


@pytest.fixture
async def api(request: pytest.FixtureRequest, database_url: str, redis_url: str) -> AsyncIterator[Api]:
    """With the default settings, or those of the test's indirect parameter."""
    async for one in serve_api(database_url, redis_url, **getattr(request, "param", {})):
        yield one
