"""The console, served in this process over the session's servers, for tests."""

from __future__ import annotations

import contextlib
import html
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

import aiohttp
from aiohttp import web
from yarl import URL

from okane.api.http.connection_limits import ConnectionLimits
from okane.api.http.server import serving
from okane.api_key import ACCOUNT, Mode, NewKey, Scope
from okane.config import Settings
from okane.console.app import build_console, refused
from okane.console.services import ConsoleServices, open_services
from okane.lanes import payments_stream

LIMITS = ConnectionLimits(connections=1000, head_timeout_s=60.0, keep_alive_timeout_s=60.0, write_timeout_s=60.0)
SECRET = "a-secret-of-sessions-in-tests-42-characters"
ALL = tuple(Scope)
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that was read."""

    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def location(self) -> str:
        return self.headers.get("Location", "")


@dataclass(slots=True)
class Browser:
    """A client with cookies of its own, which follows no redirect and sends forms as the console's own pages do."""

    client: aiohttp.ClientSession
    url: str
    base: str
    secret: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    async def get(self, path: str, **headers: str) -> Answer:
        """Request a page. `path` is under the base path, or an address that a page has."""
        return await self._request("GET", path, headers=headers)

    async def post(self, path: str, fields: Mapping[str, str] | None = None, **headers: str) -> Answer:
        """Send a form with these fields as they are: without a token where none is given."""
        return await self._request("POST", path, data=dict(fields or {}), headers={**SAME_ORIGIN, **headers})

    async def submit(self, path: str, fields: Mapping[str, str] | None = None, **headers: str) -> Answer:
        """Send a form with the token of the session."""
        return await self.post(path, {"csrf": await self.csrf(), **(fields or {})}, **headers)

    async def csrf(self) -> str:
        """Return the token of the session, from a page: without authentication, one with an action."""
        for path in ("/no-such-page", "/keys"):
            found = re.search(r'name="csrf" value="([0-9a-f]+)"', (await self.get(path)).text)
            if found is not None:
                return found[1]
        return ""

    async def log_in(self, secret: str, next_path: str = "") -> Answer:
        """Log in."""
        return await self.post("/login", {"key": secret, "next": next_path})

    @property
    def cookies(self) -> Mapping[str, str]:
        return {name: morsel.value for name, morsel in self.client.cookie_jar.filter_cookies(URL(self.at("/"))).items()}

    def at(self, path: str) -> str:
        """Return the whole address of a path under the base path."""
        return f"{self.url}{path if self.base and path.startswith(f'{self.base}/') else self.base + path}"

    async def _request(self, method: str, path: str, *, headers: Mapping[str, str], **more: Any) -> Answer:
        sent = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        async with self.client.request(method, self.at(path), headers=sent, allow_redirects=False, **more) as response:
            return Answer(response.status, await response.text(), response.headers)


@dataclass(frozen=True, slots=True)
class Console:
    """A served console and its parts."""

    services: ConsoleServices
    url: str
    base: str
    browsers: contextlib.AsyncExitStack

    async def browser(self, **headers: str) -> Browser:
        """Return a client without a session."""
        jar = aiohttp.CookieJar(unsafe=True)  # the host is an address
        client = await self.browsers.enter_async_context(aiohttp.ClientSession(cookie_jar=jar))
        return Browser(client, self.url, self.base, headers={k.replace("_", "-"): v for k, v in headers.items()})

    async def key(self, *scopes: Scope, account: str = ACCOUNT, **more: Any) -> str:
        """Return the secret of a new key: with all scopes, if none are given."""
        new = NewKey.make(Mode.TEST)
        await self.services.keys.create(new, account_id=account, mode=Mode.TEST, scopes=scopes or ALL, **more)
        return new.secret

    async def logged_in(self, *scopes: Scope, account: str = ACCOUNT) -> Browser:
        """Return a client that is logged in with a new key of these scopes (default: all)."""
        browser = await self.browser()
        browser.secret = await self.key(*scopes, account=account)
        assert (await browser.log_in(browser.secret)).status == 303
        return browser


@contextlib.asynccontextmanager
async def serve_console(
    database_url: str, redis_url: str, *, now: Any = None, limits: ConnectionLimits = LIMITS, **changed: Any
) -> AsyncIterator[Console]:
    """Serve the console over these two servers, on a stream of its own."""
    settings = Settings(_env_file=None, **{"console_secret": SECRET, "drain": timedelta(seconds=1), **changed})
    stream = payments_stream(f"test-{uuid4()}")
    clock = {} if now is None else {"now": now}
    async with (
        open_services(settings, database_url=database_url, redis_url=redis_url, stream=stream, **clock) as services,
        _serving(build_console(services), limits) as url,
        contextlib.AsyncExitStack() as browsers,
    ):
        yield Console(services, url, settings.console_base, browsers)


def _serving(app: web.Application, limits: ConnectionLimits) -> contextlib.AbstractAsyncContextManager[str]:
    return serving(app, "127.0.0.1", 0, limits=limits, drain=timedelta(seconds=1), refusal_text=refused(app))


def text_of(page: str) -> str:
    """Return the text of a page, without its tags and with its blanks joined."""
    without_tags = re.sub(r"<[^>]*>", " ", page)
    return " ".join(html.unescape(without_tags).split())
