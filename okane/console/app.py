"""The application: every screen behind the gate, with and without the base path, and the headers of every answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from types import MappingProxyType

from aiohttp import web
from aiohttp.typedefs import Handler

from okane.console.actions import AUDIT
from okane.console.assets import Assets
from okane.console.gate import Gate, Screen
from okane.console.links import Links
from okane.console.login import LoginScreens
from okane.console.login_limit import LoginLimit
from okane.console.page_errors import error_page
from okane.console.refusals import Refusal, refusal_pages
from okane.console.rendering import PAGES, Pages, redirect
from okane.console.screens import SCREENS, Screens
from okane.console.secret import load_signer
from okane.console.services import ConsoleServices
from okane.console.session_keys import SessionKeys
from okane.origin_guard import OriginGuard

MAX_FORM_BYTES = 64 * 1024

HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": (
            "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-store, private",
    }
)

KEYS = web.AppKey("keys", SessionKeys)


def refused(app: web.Application) -> Callable[[Refusal], tuple[Mapping[str, str], bytes]]:
    """Return the function by which the server of a console answers what is not a request: with a page."""
    return refusal_pages(app[PAGES], HEADERS)


def build_console(services: ConsoleServices) -> web.Application:
    """Build the application. Its caller closes the services. Raises SetupError for a secret that cannot be used."""
    settings = services.settings
    without_keys = settings.auth == "none"
    links = Links(settings.console_base, Assets.load(), settings.console_grafana or "")
    signer = load_signer(settings.console_secret)
    pages = Pages(
        links=links,
        signer=signer,
        read_only=settings.console_read_only,
        now=services.now,
        outages=services.outages,
        login=not without_keys,
    )
    keys = None if without_keys else SessionKeys(services.keys, mode=settings.mode, outage=services.outages.postgres)
    gate = Gate(
        pages=pages,
        keys=keys,
        audit=services.audit,
        outages=services.outages,
        proxies=settings.console_proxies or (),
        guard=OriginGuard(settings.allowed_hosts or frozenset()) if without_keys else None,
    )
    login = LoginScreens(pages=pages, gate=gate, keys=keys, limit=LoginLimit(services.buckets), audit=services.audit)
    app = web.Application(middlewares=[_around_requests], client_max_size=MAX_FORM_BYTES)
    app[PAGES] = pages
    app[AUDIT] = services.audit
    if keys is not None:
        app[KEYS] = keys
        app.cleanup_ctx.append(_writing_use)
    screens = Screens(services, login)
    for screen, handler in SCREENS:
        _add(app, links, screen.method, screen.path, gate.guarded(screen, handler(screens)))
    _add(app, links, "GET", "/static/{name}", links.assets.serve)
    app.router.add_get("/healthz", _healthy)
    if links.base:
        app.router.add_get(links.base, _to_overview)
    app.router.add_get("/{path:.*}", gate.guarded(Screen("GET", "/{path}", None), _not_found))  # the last one
    return app


def _add(app: web.Application, links: Links, method: str, path: str, handler: Handler) -> None:
    """Add a route under the base path; without it, too, for a proxy that removes it."""
    for one in {f"{links.base}{path}", path}:
        if method == "GET":
            app.router.add_get(one, handler)
        else:
            app.router.add_route(method, one, handler)


async def _to_overview(request: web.Request) -> web.StreamResponse:
    return redirect(request.app[PAGES].links.overview())


async def _healthy(_request: web.Request) -> web.StreamResponse:
    return web.Response(text="ok\n")


async def _not_found(_request: web.Request) -> web.StreamResponse:
    raise web.HTTPNotFound


@web.middleware
async def _around_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error with a page, and every request with the headers that keep the page's content in it."""
    try:
        response = await handler(request)
    except ConnectionError:
        raise  # the client went away in the middle of its request: no answer can reach it
    except Exception as error:
        response = error_page(request, error)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


async def _writing_use(app: web.Application) -> AsyncIterator[None]:
    """Write when keys were used, for as long as the application runs."""
    stop = asyncio.Event()
    writing = asyncio.create_task(app[KEYS].run(stop))
    yield
    stop.set()
    await writing
