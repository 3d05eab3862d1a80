"""Log-in, sessions and log-out."""

from __future__ import annotations

import re
from datetime import timedelta
from importlib import resources

import pytest

from okane.api_key import Mode, NewKey, Scope
from okane.console import login_limit, session_keys
from okane.console.session import COOKIE
from okane.console.session_keys import CACHE_S, SessionKeys
from okane.errors import StoreUnavailable
from okane.redis.buckets import Allowance
from okane.store import ApiKeyStore, StoredKey
from okane.store.key_check import UNKNOWN
from tests.console.served_console import ALL, Console, serve_console, text_of

UNKNOWN_KEY = f"sk_test_{'a' * 12}_{'0' * 64}"
EVIL = [
    "//evil.example",
    "https://evil.example/console/",
    "/\\evil.example",
    "\\\\evil.example",
    "/console",
    "/consolee/x",
    "/console/../x",
    "/console/%2e%2e/x",
    "/console/\n",
    "javascript:alert(1)",
    "/console/é",
    "http:/console/",
    "///console/",
    "",
]


async def test_without_a_session_a_page_leads_to_the_log_in_and_back(console: Console) -> None:
    browser = await console.browser()
    wanted = "/console/payments?q=abc&status=pending"
    refused = await browser.get(wanted)
    assert refused.status == 303
    assert refused.location == "/console/login?next=%2Fconsole%2Fpayments%3Fq%3Dabc%26status%3Dpending"
    page = await browser.get(refused.location)
    assert 'value="/console/payments?q=abc&amp;status=pending"' in page.text
    entered = await browser.log_in(await console.key(), wanted)
    assert (entered.status, entered.location) == (303, wanted)
    again = await browser.get(refused.location)  # in another tab
    assert (again.status, again.location) == (303, wanted)


@pytest.mark.parametrize("wanted", EVIL)
async def test_next_is_always_a_path_of_the_console(console: Console, wanted: str) -> None:
    browser = await console.browser()
    entered = await browser.log_in(await console.key(Scope.SYSTEM), wanted)
    assert (entered.status, entered.location) == (303, "/console/")


async def test_the_cookie_is_for_the_console_alone_and_holds_no_secret(console: Console) -> None:
    browser, secret = await console.browser(), await console.key()
    entered = await browser.log_in(secret)
    cookie = entered.headers["Set-Cookie"]
    assert cookie.startswith(f"{COOKIE}={secret[:20]}.")
    assert set(cookie.split("; ")[1:]) == {"HttpOnly", "Max-Age=28800", "Path=/console", "SameSite=Lax"}
    assert secret[21:] not in cookie


async def test_behind_a_proxy_with_tls_the_cookie_is_secure(database_url: str, redis_url: str) -> None:
    async with serve_console(database_url, redis_url, console_proxies="127.0.0.0/8") as console:
        browser = await console.browser(X_Forwarded_Proto="https")
        assert "; Secure" in (await browser.log_in(await console.key())).headers["Set-Cookie"]
        key = await console.key(Scope.READ)
        # The test's own connection is not encrypted, so the client has to be told to send the cookie.
        signed = {morsel.key: morsel.value for morsel in browser.client.cookie_jar}
        sender = await console.browser(X_Forwarded_Proto="https", Cookie=f"{COOKIE}={signed[COOKIE]}")
        done = await sender.submit(f"/keys/{key[:20]}/revoke")
        assert done.headers["Set-Cookie"].startswith("okane_console_message=")
        assert "; Secure" in done.headers["Set-Cookie"]


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("", "This is not an API key."),
        ("sk_test_x", "This is not an API key."),
        (UNKNOWN_KEY, "There is no such API key."),
    ],
)
async def test_a_key_that_does_not_exist_gets_no_session(console: Console, key: str, says: str) -> None:
    browser = await console.browser()
    refused = await browser.log_in(key)
    assert refused.status == 401
    assert says in text_of(refused.text)
    assert key not in refused.text or not key
    assert browser.cookies == {}


async def test_a_key_that_has_ended_or_is_of_another_mode_gets_no_session(console: Console) -> None:
    revoked, expired = await console.key(), await console.key(lifetime=timedelta(milliseconds=1))
    await console.services.keys.revoke(revoked[:20])
    live = NewKey.make(Mode.LIVE)
    await console.services.keys.create(live, account_id="default", mode=Mode.LIVE, scopes=ALL)
    browser = await console.browser()
    for secret, says in ((revoked, "was revoked"), (expired, "has expired"), (live.secret, "is a live key")):
        refused = await browser.log_in(secret)
        assert (refused.status, says in text_of(refused.text)) == (401, True), says


async def test_log_ins_and_refused_ones_are_in_the_audit_table(console: Console) -> None:
    browser = await console.logged_in()
    await browser.log_in(UNKNOWN_KEY)
    refused, done = await console.services.audit.page(limit=10)
    assert (done.action, done.answer, done.key, done.address) == ("log in", "done", browser.secret[:20], "127.0.0.1")
    assert done.session == browser.cookies[COOKIE].split(".")[1]
    assert (refused.answer, refused.key, refused.session) == (f"refused: {UNKNOWN}", UNKNOWN_KEY[:20], "")


async def test_another_site_cannot_log_a_browser_in(console: Console) -> None:
    browser, secret = await console.browser(), await console.key()
    refused = await browser.post("/login", {"key": secret}, Sec_Fetch_Site="cross-site")
    assert refused.status == 403
    assert browser.cookies == {}


async def test_the_eleventh_attempt_of_a_minute_is_refused(database_url: str, redis_url: str) -> None:
    async with serve_console(database_url, redis_url, console_proxies="127.0.0.1/32") as console:
        browser = await console.browser(X_Forwarded_For="198.51.100.7")
        statuses = [(await browser.log_in("wrong")).status for _ in range(10)]
        assert statuses == [401] * 10
        refused = await browser.log_in(await console.key())  # a right one, too
        assert refused.status == 429
        wait_s = int(refused.headers["Retry-After"])
        assert 1 <= wait_s <= 6
        assert f"Try again in {wait_s} s." in text_of(refused.text)
        other = await console.browser(X_Forwarded_For="198.51.100.8")
        assert (await other.log_in(await console.key())).status == 303


async def test_attempts_of_all_addresses_are_limited_together(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login_limit, "IN_ALL", Allowance(1 / 60, 3))
    async with serve_console(database_url, redis_url, console_proxies="127.0.0.1/32") as console:
        browser = await console.browser()
        statuses = [
            (await browser.post("/login", {"key": "x"}, X_Forwarded_For=f"198.51.100.{number}")).status
            for number in range(5)
        ]
    assert statuses == [401, 401, 401, 429, 429]


async def test_attempts_are_limited_while_redis_is_away(database_url: str, free_port: int) -> None:
    async with serve_console(database_url, f"redis://127.0.0.1:{free_port}/0") as console:
        browser = await console.browser()
        statuses = [(await browser.log_in("wrong")).status for _ in range(12)]
    assert statuses == [401] * 10 + [429] * 2


async def test_logging_out_ends_the_session_and_every_copy_of_its_cookie(console: Console) -> None:
    browser = await console.logged_in()
    copy = dict(browser.cookies)
    gone = await browser.submit("/logout")
    assert (gone.status, gone.location) == (303, "/console/login")
    assert browser.cookies == {}
    thief = await console.browser(Cookie=f"{COOKIE}={copy[COOKIE]}")
    assert (await thief.get("/audit")).status == 303
    written = (await console.services.audit.page(limit=1))[0]
    assert (written.action, written.key, written.answer) == ("log out", browser.secret[:20], "done")


async def test_a_session_that_was_logged_out_stays_so_after_a_restart(database_url: str, redis_url: str) -> None:
    async with serve_console(database_url, redis_url) as console:
        gone, stays = await console.logged_in(), await console.logged_in()
        cookies = [browser.cookies[COOKIE] for browser in (gone, stays)]
        assert (await stays.post("/logout")).status == 403  # a refused one ends nothing
        await gone.submit("/logout")
    async with serve_console(database_url, redis_url) as restarted:
        copies = [await restarted.browser(Cookie=f"{COOKIE}={cookie}") for cookie in cookies]
        assert [(await copy.get("/audit")).status for copy in copies] == [303, 200]


async def test_logging_out_needs_the_token(console: Console) -> None:
    browser = await console.logged_in()
    assert (await browser.post("/logout")).status == 403
    assert (await browser.get("/audit")).status == 200


async def test_a_forged_cookie_is_no_session_and_is_taken_away(console: Console) -> None:
    browser = await console.logged_in()
    forged = browser.cookies[COOKIE][:-1] + ("0" if browser.cookies[COOKIE][-1] != "0" else "1")
    thief = await console.browser(Cookie=f"{COOKIE}={forged}")
    refused = await thief.get("/audit")
    assert refused.status == 303
    assert "Max-Age=0" in refused.headers["Set-Cookie"]


async def test_a_live_region_gets_401_once_the_session_is_over(console: Console) -> None:
    browser = await console.browser()
    assert (await browser.get("/?part=1")).status == 401


async def test_a_session_whose_key_sees_no_system_starts_with_payments(console: Console) -> None:
    browser = await console.logged_in(Scope.READ)
    start = await browser.get("/")
    assert (start.status, start.location) == (303, "/console/payments")


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


class Keys:
    """A store with one key."""

    def __init__(self, key: StoredKey) -> None:
        self.key: StoredKey | None = key
        self.reads = 0
        self.is_away = False

    async def find(self, _prefix: str) -> StoredKey | None:
        self.reads += 1
        if self.is_away:
            raise StoreUnavailable("away")
        return self.key


def stored(**changed: object) -> StoredKey:
    fields: dict[str, object] = {
        "prefix": "sk_test_0123456789ab",
        "secret_hash": bytes(32),
        "account_id": "acme",
        "mode": Mode.TEST,
        "scopes": frozenset({Scope.READ}),
        "rate": None,
        "revoked": False,
        "left_s": None,
    }
    return StoredKey(**{**fields, **changed})  # type: ignore[arg-type]  # of the test's own fields


def checked(keys: Keys, clock: Clock) -> SessionKeys:
    return SessionKeys(keys, mode=Mode.TEST, now_s=clock)  # type: ignore[arg-type]  # only `find` is used


@pytest.mark.parametrize("ending", [{"revoked": True}, {"left_s": 0.0}, {"mode": Mode.LIVE}])
async def test_a_session_ends_within_five_seconds_of_its_key(ending: dict[str, object]) -> None:
    keys, clock = Keys(stored()), Clock()
    sessions = checked(keys, clock)
    assert (await sessions.holder("sk_test_0123456789ab")) is not None
    keys.key = stored(**ending)
    clock.s += CACHE_S - 0.1
    assert await sessions.holder("sk_test_0123456789ab") is not None
    assert keys.reads == 1  # cached
    clock.s += 0.1
    assert await sessions.holder("sk_test_0123456789ab") is None


def test_an_open_page_learns_within_five_seconds_that_its_session_has_ended() -> None:
    script = (resources.files("okane.console") / "static" / "console.js").read_text()
    polled = re.search(r"INTERVAL_MS = (\d+);", script)
    assert polled is not None
    assert CACHE_S + int(polled[1]) / 1000 < 5


async def test_a_key_that_expires_is_not_cached_beyond_its_end() -> None:
    keys, clock = Keys(stored(left_s=2.0)), Clock()
    sessions = checked(keys, clock)
    assert await sessions.holder("sk_test_0123456789ab") is not None
    clock.s += 2.0
    keys.key = stored(left_s=0.0)
    assert await sessions.holder("sk_test_0123456789ab") is None


async def test_a_scope_that_was_removed_is_gone_within_five_seconds() -> None:
    keys, clock = Keys(stored()), Clock()
    sessions = checked(keys, clock)
    await sessions.holder("sk_test_0123456789ab")
    keys.key = stored(scopes=frozenset())
    clock.s += 5.0
    holder = await sessions.holder("sk_test_0123456789ab")
    assert holder is not None
    assert holder.scopes == frozenset()


async def test_while_postgres_is_away_a_known_key_may_look_for_a_while_and_is_marked() -> None:
    keys, clock = Keys(stored()), Clock()
    sessions = checked(keys, clock)
    await sessions.holder("sk_test_0123456789ab")
    keys.is_away = True
    clock.s += 6.0
    holder = await sessions.holder("sk_test_0123456789ab")
    assert holder is not None
    assert not holder.checked
    with pytest.raises(StoreUnavailable):
        await sessions.holder("sk_test_bbbbbbbbbbbb")
    clock.s += session_keys.UNCHECKED_S
    with pytest.raises(StoreUnavailable):
        await sessions.holder("sk_test_0123456789ab")


async def test_the_use_of_a_key_is_written(console: Console, database_url: str) -> None:
    browser = await console.logged_in()
    await browser.get("/audit")
    store = ApiKeyStore(database_url)
    sessions = SessionKeys(store, mode=Mode.TEST)
    await sessions.holder(browser.secret[:20])
    assert await sessions.run_once() == 1
    assert await sessions.run_once() == 0
    await store.aclose()
