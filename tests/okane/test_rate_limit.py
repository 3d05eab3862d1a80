"""Rate limits: over the API on both paths, with Redis and without."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from okane.api.access import AnonymousAccess, KeyAccess
from okane.api.problems import Problem
from okane.api.rate_limit import RateLimits
from okane.api_key import Mode, NewKey, Scope
from okane.rate import Rate
from okane.redis.buckets import Allowance, TakeResult, TokenBuckets
from okane.redis.presence import PresentProcess
from okane.store import ApiKeyStore
from streams import Stream, StreamUnavailable, connect
from tests.okane.api_requests import rows
from tests.okane.served_api import Api, serve_api

SLOW = Rate.parse("5/h")
PATHS = pytest.mark.parametrize("more", [{}, {"Content-Encoding": "identity"}], ids=["fast path", "aiohttp"])
APIS = [PresentProcess(address=f"a:{port}", role="api", name="api", silent_ms=0) for port in (1, 2)]


async def processes() -> list[PresentProcess]:
    dead = PresentProcess(address="a:3", role="api", name="api", silent_ms=10**9)
    return [*APIS, dead, PresentProcess(address="a:4", role="worker", name="w", silent_ms=0)]


@asynccontextmanager
async def limits(redis_url: str, stream: Stream) -> AsyncIterator[RateLimits]:
    client = connect(redis_url)
    buckets = TokenBuckets(client, stream)
    yield RateLimits(buckets, processes)
    await buckets.aclose()
    await client.aclose()


@pytest.fixture
def stream() -> Stream:
    return Stream(f"test-{NewKey.make(Mode.TEST).prefix}")


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[ApiKeyStore]:
    store = ApiKeyStore(database_url)
    yield store
    await store.aclose()


@pytest.fixture
async def api(database_url: str, redis_url: str, store: ApiKeyStore, stream: Stream) -> AsyncIterator[Api]:
    """Serve an API on which keys without a limit of their own have SLOW."""
    async with limits(redis_url, stream) as counted:
        access = KeyAccess(store, counted, mode=Mode.TEST, rate=SLOW)
        async for one in serve_api(database_url, redis_url, access):
            yield one


async def key(
    store: ApiKeyStore, rate: str | None = None, scopes: Collection[Scope] = tuple(Scope)
) -> Mapping[str, str]:
    """Create a key; return its header."""
    new = NewKey.make(Mode.TEST)
    limit = None if rate is None else Rate.parse(rate)
    await store.create(new, account_id="acme", mode=Mode.TEST, scopes=scopes, rate=limit)
    return {"Authorization": f"Bearer {new.secret}", "Content-Type": "application/json"}


async def pay(api: Api, headers: Mapping[str, str], number: int, **more: str) -> tuple[int, Mapping[str, str], str]:
    body = f'{{"amount": 440, "idempotency_key": "k-{number}"}}'
    async with api.client.post("/v1/payments", data=body, headers={**headers, **more}) as response:
        return response.status, response.headers, (await response.json()).get("code", "")


@PATHS
async def test_a_request_above_the_limit_is_refused_and_leaves_no_row(
    api: Api, store: ApiKeyStore, more: Mapping[str, str]
) -> None:
    headers = await key(store)
    answers = [await pay(api, headers, number, **more) for number in range(7)]
    assert [status for status, _, _ in answers] == [202] * 5 + [429] * 2
    assert await rows(api) == 5
    for left, (_, said, _) in zip((4, 3, 2, 1, 0, 0, 0), answers, strict=True):
        assert said["RateLimit-Policy"] == '"key";q=5;w=3600'
        assert re.fullmatch(rf'"key";r={left};t=\d+', said["RateLimit"])
    _, said, code = answers[-1]
    assert code == "rate_limited"
    assert 0 < int(said["Retry-After"]) <= 720


async def test_reading_and_repeating_count_too(api: Api, store: ApiKeyStore) -> None:
    headers = await key(store)
    assert [(await pay(api, headers, 1))[0] for _ in range(3)] == [202, 200, 200]
    found = []
    for _ in range(3):
        async with api.client.get("/v1/payments/x", headers=headers) as response:
            found.append((response.status, "RateLimit" in response.headers))
    assert found == [(404, True), (404, True), (429, True)]


# What a key may send that comes to nothing: method, path, body, the status of its refusal.
IN_VAIN = [
    ("GET", "/v1/payments", None, 403),
    ("GET", "/v1/dead-letters?limit=0", None, 403),
    ("POST", "/v1/dead-letters/replay", "{}", 403),
    ("POST", "/v1/payments", '{"amount": 0, "idempotency_key": "k"}', 422),
    ("POST", "/v1/payments", "{", 400),
    ("POST", "/v1/payments/batch", "[]", 422),
    ("POST", "/v1/payments/batch", '[{"amount": 0}]', 207),
    ("POST", "/v1/payments/x/cancel", None, 404),
    ("GET", "/v1/no-such-route", None, 404),
    ("DELETE", "/v1/payments", None, 405),
    ("POST", "/v1/payments", "x" * 70_000, 413),
]


@PATHS
@pytest.mark.parametrize(("method", "path", "body", "status"), IN_VAIN)
async def test_a_request_in_vain_counts_as_any_other(
    api: Api, store: ApiKeyStore, method: str, path: str, body: str | None, status: int, more: Mapping[str, str]
) -> None:
    headers = {**await key(store, scopes=(Scope.WRITE,)), **more}
    answers = []
    for _ in range(6):
        async with api.client.request(method, path, data=body, headers=headers) as response:
            answers.append((response.status, response.headers.get("RateLimit", "")[:9]))
    assert answers == [*((status, f'"key";r={left}') for left in (4, 3, 2, 1, 0)), (429, '"key";r=0')]


async def test_a_missing_scope_is_the_same_problem_on_both_paths(api: Api, store: ApiKeyStore) -> None:
    headers = await key(store, scopes=(Scope.READ,))
    answers = [
        await pay(api, headers, number, **more) for number, more in enumerate([{}, {"Content-Encoding": "identity"}])
    ]
    assert [(status, code) for status, _, code in answers] == [(403, "scope_missing")] * 2
    assert [said["RateLimit"][:9] for _, said, _ in answers] == ['"key";r=4', '"key";r=3']
    assert await rows(api) == 0


async def test_no_route_counts_nothing_for_a_client_without_a_key(api: Api) -> None:
    for headers in ({}, {"Authorization": "Bearer x"}):
        for _ in range(7):
            async with api.client.get("/v1/no-such-route", headers=headers) as response:
                assert (response.status, "RateLimit" in response.headers) == (404, False)


async def test_a_key_has_its_own_limit(api: Api, store: ApiKeyStore) -> None:
    small, large, usual = await key(store, "1/h"), await key(store, "100/h burst 20"), await key(store)
    granted = []
    for headers in (small, large, usual):
        statuses = [(await pay(api, headers, number))[0] for number in range(10)]
        granted.append(10 - statuses.count(429))
    assert granted == [1, 10, 5]


async def test_a_route_without_a_key_is_not_counted(api: Api) -> None:
    for _ in range(10):
        async with api.client.get("/v1/health") as response:
            assert (response.status, "RateLimit" in response.headers) == (200, False)


async def test_without_keys_the_account_is_limited(redis_url: str, stream: Stream) -> None:
    async with limits(redis_url, stream) as counted:
        anonymous = AnonymousAccess(counted, rate=SLOW)
        for _ in range(5):
            assert "RateLimit" in (await anonymous.admit((), Scope.READ)).headers
        with pytest.raises(Problem, match="5/h"):
            await anonymous.admit((), Scope.READ)


async def test_without_a_limit_nothing_is_counted() -> None:
    class Nothing(RateLimits):
        def __init__(self) -> None:
            """A Redis whose commands fail."""

    assert (await AnonymousAccess(Nothing()).admit((), Scope.READ)).headers == {}


class Broken(TokenBuckets):
    """Buckets in a Redis that is away, or does not answer."""

    def __init__(self, *, silent: bool = False) -> None:
        self.asked = 0
        self._silent = silent

    async def take(self, name: str, allowance: Allowance) -> TakeResult:
        self.asked += 1
        if self._silent:
            await asyncio.Event().wait()
        raise StreamUnavailable("away")


@pytest.mark.parametrize("silent", [False, True])
async def test_without_redis_each_api_grants_its_share_of_a_limit(
    silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("okane.api.rate_limit.TIMEOUT_S", 0.05)
    monkeypatch.setattr("okane.api.rate_limit.AWAY_S", timedelta(hours=1).total_seconds())
    broken = Broken(silent=silent)
    counted, ten = RateLimits(broken, processes), Rate.parse("10/h")
    assert await counted.run_once() == 1  # no limit is in use yet: the number of APIs is not read
    await counted.take("a", ten)
    assert await counted.run_once() == 2
    assert [await granted(counted, "b", ten) for _ in range(6)] == [True] * 5 + [False]
    assert broken.asked == 1  # it is not tried again and again


async def granted(counted: RateLimits, name: str, rate: Rate) -> bool:
    try:
        await counted.take(name, rate)
    except Problem:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "per_s", "burst"),
    [("100/s", 100, 100), ("6000/m", 100, 6000), ("1/h", 1 / 3600, 1), ("5/s burst 9", 5, 9)],
)
def test_a_rate_is_read_and_written(text: str, per_s: float, burst: int) -> None:
    rate = Rate.parse(text)
    assert rate.per_s == pytest.approx(per_s)
    assert (rate.burst, str(rate)) == (burst, text)


@pytest.mark.parametrize(
    "text", ["", "0/s", "100", "-1/s", "1.5/s", "100/d", "100/s burst 0", "9999999999/s", "1/s\n2/s"]
)
def test_a_text_that_is_not_a_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a rate"):
        Rate.parse(text)
