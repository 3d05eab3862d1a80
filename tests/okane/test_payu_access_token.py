"""When an access token of PayU is fetched, shared, renewed and replaced."""

from __future__ import annotations

import asyncio

import pytest

from okane.providers.base import Unavailable
from okane.providers.payu import access_token
from okane.providers.payu.access_token import AccessTokenSource, renewal_delay_s
from okane.providers.payu.answers import AccessToken

DOWN = Unavailable("no access token: HTTP 500")


class Oauth:
    """Answers fetches from a script, the last outcome for all further ones; while `open` is clear they wait."""

    def __init__(self, *outcomes: AccessToken | Unavailable) -> None:
        self.outcomes = list(outcomes)
        self.fetches = 0
        self.fetched = asyncio.Condition()
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self) -> AccessToken | Unavailable:
        async with self.fetched:
            self.fetches += 1
            self.fetched.notify_all()
        await self.open.wait()
        return self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]

    async def wait_for(self, fetches: int) -> None:
        async with asyncio.timeout(10), self.fetched:
            await self.fetched.wait_for(lambda: self.fetches >= fetches)


async def get(source: AccessTokenSource, *, within_s: float = 10.0) -> str | Unavailable:
    return await source.get(due_s=asyncio.get_running_loop().time() + within_s)


async def test_a_valid_token_is_fetched_once() -> None:
    oauth = Oauth(AccessToken("a", 3600.0), AccessToken("b", 3600.0))
    source = AccessTokenSource(oauth)
    assert [await get(source) for _ in range(3)] == ["a"] * 3
    assert oauth.fetches == 1
    await source.aclose()


async def test_calls_at_the_same_time_share_one_fetch() -> None:
    oauth = Oauth(AccessToken("a", 3600.0), AccessToken("b", 3600.0))
    source = AccessTokenSource(oauth)
    assert await asyncio.gather(*(get(source) for _ in range(20))) == ["a"] * 20
    assert oauth.fetches == 1
    await source.aclose()


async def test_a_cancelled_call_leaves_the_fetch_to_the_others() -> None:
    oauth = Oauth(AccessToken("a", 3600.0))
    oauth.open.clear()
    source = AccessTokenSource(oauth)
    first, second = asyncio.create_task(get(source)), asyncio.create_task(get(source))
    await oauth.wait_for(1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    oauth.open.set()
    assert await second == "a"
    assert oauth.fetches == 1
    await source.aclose()


async def test_a_failed_fetch_is_told_and_the_next_call_tries_again() -> None:
    oauth = Oauth(DOWN, AccessToken("a", 3600.0))
    source = AccessTokenSource(oauth)
    assert await get(source) == DOWN
    assert await get(source) == "a"
    await source.aclose()


async def test_a_call_waits_no_longer_than_its_deadline() -> None:
    oauth = Oauth(AccessToken("a", 3600.0))
    oauth.open.clear()
    source = AccessTokenSource(oauth)
    assert await get(source, within_s=0.05) == Unavailable("no access token in time")
    oauth.open.set()
    assert await get(source) == "a"
    assert oauth.fetches == 1
    await source.aclose()


@pytest.mark.parametrize(
    ("lifetime_s", "delay_s"), [(43199.0, 42599.0), (1200.0, 600.0), (600.0, 300.0), (2.0, 5.0), (0.0, 5.0)]
)
def test_a_token_is_renewed_well_before_its_end(lifetime_s: float, delay_s: float) -> None:
    assert renewal_delay_s(lifetime_s) == delay_s


async def test_a_token_is_renewed_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_token, "renewal_delay_s", lambda lifetime_s: 0.01 if lifetime_s < 7200 else lifetime_s)
    oauth = Oauth(AccessToken("a", 3600.0), AccessToken("b", 7200.0))
    source = AccessTokenSource(oauth)
    assert await get(source) == "a"
    await oauth.wait_for(2)  # by itself
    while await get(source) == "a":  # its answer is still to be read
        await asyncio.sleep(0)
    assert await get(source) == "b"
    assert oauth.fetches == 2
    await source.aclose()


async def test_calls_use_the_old_token_while_its_renewal_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_token, "renewal_delay_s", lambda lifetime_s: 0.01 if lifetime_s < 7200 else lifetime_s)
    monkeypatch.setattr(access_token, "RENEWAL_PAUSES_S", (0.01,))
    oauth = Oauth(AccessToken("a", 3600.0), DOWN, DOWN, AccessToken("b", 7200.0))
    source = AccessTokenSource(oauth)
    assert await get(source) == "a"
    await oauth.wait_for(2)
    oauth.open.clear()
    await oauth.wait_for(3)
    assert await get(source) == "a"
    oauth.open.set()
    await oauth.wait_for(4)
    while await get(source) == "a":
        await asyncio.sleep(0)
    assert await get(source) == "b"
    await source.aclose()


async def test_an_ended_token_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    oauth = Oauth(AccessToken("a", 0.02), DOWN, AccessToken("b", 3600.0))
    source = AccessTokenSource(oauth)
    assert await get(source) == "a"
    await asyncio.sleep(0.03)
    assert await get(source) == DOWN
    assert await get(source) == "b"
    await source.aclose()


async def test_a_refused_token_is_replaced_once_for_all_its_calls() -> None:
    oauth = Oauth(AccessToken("a", 3600.0), AccessToken("b", 3600.0), AccessToken("c", 3600.0))
    source = AccessTokenSource(oauth)
    assert await get(source) == "a"
    due_s = asyncio.get_running_loop().time() + 10
    replaced = await asyncio.gather(*(source.replace("a", due_s=due_s) for _ in range(5)))
    assert replaced == ["b"] * 5
    assert await source.replace("a", due_s=due_s) == "b"  # a call that was slower
    assert oauth.fetches == 2
    await source.aclose()


async def test_closing_ends_the_fetch_and_the_calls_that_wait_for_it() -> None:
    oauth = Oauth(AccessToken("a", 3600.0))
    oauth.open.clear()
    source = AccessTokenSource(oauth)
    call = asyncio.create_task(get(source))
    await oauth.wait_for(1)
    await source.aclose()
    closed = Unavailable("no access token: the client is closed")
    assert await call == closed
    assert await get(source) == closed
