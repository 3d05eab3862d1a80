"""API keys of an account, and requests that carry them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from okane.api_key import Mode, NewKey, Scope
from okane.store import ApiKeyStore
from tests.okane.served_api import Api

ALL = tuple(Scope)


BODY = '{"amount": 440, "idempotency_key": "k"}'


JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[ApiKeyStore]:
    store = ApiKeyStore(database_url, timeout=timedelta(seconds=3))
    yield store
    await store.aclose()


async def make(store: ApiKeyStore, account: str, *scopes: Scope, mode: Mode = Mode.TEST, **more: Any) -> str:
    """The secret of a new key."""
    new = NewKey.make(mode)
    await store.create(new, account_id=account, mode=mode, scopes=scopes or ALL, **more)
    return new.secret


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


async def ask(
    api: Api, method: str, path: str, headers: dict[str, str], body: str | None = None
) -> tuple[aiohttp.ClientResponse, Any]:
    data, more = (body, JSON) if body is not None else (None, {})
    async with api.client.request(method, path, data=data, headers=more | headers) as response:
        return response, await response.json(content_type=None) if method != "HEAD" else None


async def pay(api: Api, secret: str, body: str = BODY, path: str = "/v1/payments") -> tuple[int, Any]:
    response, said = await ask(api, "POST", path, bearer(secret), body)
    return response.status, said
