"""Pages from templates: compiled at the start, escaped always, and a variable that a template lacks is an error."""

from __future__ import annotations

import functools
import hashlib
import secrets
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any

from aiohttp import web
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from okane.api_key import Scope
from okane.console import formats
from okane.console.assets import takes_gzip
from okane.console.links import Links
from okane.console.outages import Outages
from okane.console.session import MESSAGE_COOKIE, SESSION, Session, Signer

COMPRESS_FROM = 1000  # bytes: smaller answers fit into one packet
COMPRESS_LEVEL = 4  # of 9: the default, 6, makes a list 1 % smaller, and takes a third longer


class Body:
    """The text of an answer, as bytes; compressed when a browser first takes it so."""

    def __init__(self, text: str) -> None:
        self.plain = text.encode()

    @functools.cached_property
    def zipped(self) -> bytes:
        """The bytes, compressed. Here and now: to have a thread do it costs more than doing it."""
        compressor = zlib.compressobj(COMPRESS_LEVEL, wbits=31)
        return compressor.compress(self.plain) + compressor.flush()


@dataclass(frozen=True, slots=True)
class SharedPart:
    """The live region of all tabs, for as long as `sample` is the newest one."""

    sample: object
    body: Body
    tag: str


@functools.cache
def compiled_templates() -> Environment:
    """Return the templates, compiled: half a second of work, once for the process.

    It has no variables of a console, of which a process (that of a test) may have several.
    """
    environment = Environment(
        loader=PackageLoader("okane.console", "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        auto_reload=False,
        cache_size=-1,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(formats.FILTERS)
    for name in environment.list_templates():
        environment.get_template(name)  # a mistake in one ends the start, not a page
    return environment


class Pages:
    """The templates, and the variables that all of them have:

    `session` (None before the log-in), `links`, `csrf` (the token of its forms), `read_only`, `now` (UTC), `message` (of the
    action before, once), `path` (of this page, as the browser has it), `screens` (the navigation) and `postgres_away_since`
    (None while it answers).
    """

    def __init__(
        self,
        *,
        links: Links,
        signer: Signer,
        read_only: bool,
        now: Callable[[], datetime],
        outages: Outages,
        login: bool = True,
    ) -> None:
        self.links = links
        self.signer = signer
        self.now = now
        self.outages = outages
        self.read_only = read_only
        self.shared: dict[str, SharedPart] = {}  # by the template of the part
        self._screens: dict[frozenset[Scope], Sequence[tuple[str, str, str]]] = {}  # there are 32 sets of scopes
        self.id = secrets.token_hex(8)  # another process may have other templates
        self._constants = {"links": links, "read_only": read_only, "has_login": login}
        self._environment = compiled_templates()

    def text(self, request: web.Request, template: str, message: str | None, context: Mapping[str, Any]) -> str:
        """Return the text of a page or a part."""
        page = self.variables(request.get(SESSION), message=message, path=self.links.under_base(request.path_qs))
        return self._environment.get_template(template).render({**page, **context})

    def variables(self, session: Session | None, *, message: str | None, path: str) -> Mapping[str, Any]:
        """Return the variables of a page."""
        return {
            **self._constants,
            "session": session,
            "csrf": "" if session is None else self.signer.csrf_token(session.id),
            "now": self.now(),
            "message": message,
            "path": path,
            "screens": () if session is None else self._screens_of(session.scopes),
            "postgres_away_since": self.outages.postgres.since,
        }

    def _screens_of(self, scopes: frozenset[Scope]) -> Sequence[tuple[str, str, str]]:
        """Return the navigation: name, label and address of each screen."""
        if scopes not in self._screens:
            self._screens[scopes] = [
                (name, label, to) for name, label, scope, to in self.links.screens() if scope in scopes
            ]
        return self._screens[scopes]

    def text_without_session(self, template: str, context: Mapping[str, Any]) -> str:
        """Return the text of a part that is the same for every session. A template that uses `session` is an error."""
        return self._environment.get_template(template).render({**self._constants, **context})

    def error_text(self, *, title: str, text: str) -> str:
        """Return the text of an error page that belongs to no request, and so to no session."""
        page = self.variables(None, message=None, path=self.links.overview())
        return self._environment.get_template("error.html").render(
            {**page, "title": title, "text": text, "since": None}
        )

    def message(self, request: web.Request) -> str | None:
        """Return the message that the action before this page left for its session."""
        session, cookie = request.get(SESSION), request.cookies.get(MESSAGE_COOKIE)
        return None if session is None or cookie is None else self.signer.read_message(cookie, session.id)


PAGES = web.AppKey("pages", Pages)


def render(
    request: web.Request,
    template: str,
    *,
    status: int = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
    **context: Any,
) -> web.Response:
    """Return a page."""
    pages = request.app[PAGES]
    message = pages.message(request)
    response = _html(request, Body(pages.text(request, template, message, context)), status)
    response.headers.update(headers or {})
    if MESSAGE_COOKIE in request.cookies:
        response.del_cookie(MESSAGE_COOKIE, path=cookie_path(pages.links))
    return response


def is_part(request: web.Request) -> bool:
    """Tell whether a request is for the live region of a page (`?part=1`), not for the page."""
    return request.query.get("part") == "1"


def render_part(request: web.Request, template: str, *, state: str = "", **context: Any) -> web.Response:
    """Return the live region of a page, or 304 if the browser has it already.

    A template of a part must not show `now`, or any other value that changes by itself: no answer would be the same. With
    `state`, a text that differs wherever the region does, a region that the browser has is not even rendered.
    """
    pages = request.app[PAGES]
    if not state:
        text = pages.text(request, template, None, context)
        return _part(request, Body(text), _tag(text))
    known = find_known_part(request, state)
    return known or _part(request, Body(pages.text(request, template, None, context)), _state_tag(request, state))


def find_known_part(request: web.Request, state: str) -> web.Response | None:
    """Return the answer to a request for a live region in a state, if the browser has that already."""
    tag = _state_tag(request, state)
    return _part(request, Body(""), tag) if _has(request, tag) else None


def _state_tag(request: web.Request, state: str) -> str:
    return _tag(f"{request.app[PAGES].id} {request.path_qs} {request.get(SESSION)!r} {state}")


def render_sampled(
    request: web.Request, page: str, part: str, sample: object, context: Callable[[], Mapping[str, Any]]
) -> web.Response:
    """Return a page that includes a live region of a sample, or that region alone, as the request asks.

    The region is rendered and compressed once for each sample, whatever the number of tabs: its template has no session.
    """
    pages = request.app[PAGES]
    if not is_part(request):
        return render(request, page, **context())
    shared = pages.shared.get(part)
    if shared is None or shared.sample is not sample:
        text = pages.text_without_session(part, context())
        shared = pages.shared[part] = SharedPart(sample, Body(text), _tag(text))
    return _part(request, shared.body, shared.tag)


def _tag(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _part(request: web.Request, body: Body, tag: str) -> web.Response:
    headers = {"ETag": f'"{tag}"'}
    if _has(request, tag):
        return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    response = _html(request, body, HTTPStatus.OK)
    response.headers.update(headers)
    return response


def _has(request: web.Request, tag: str) -> bool:
    """Tell whether the browser has the region with this tag."""
    return any(one.value == tag for one in request.if_none_match or ())


def render_live(request: web.Request, page: str, part: str, **context: Any) -> web.Response:
    """Return a page that includes a live region, or that region alone, as the request asks."""
    return render_part(request, part, **context) if is_part(request) else render(request, page, **context)


def redirect(to: str) -> web.Response:
    """Return a redirect to an address of the console, which the browser requests by GET."""
    return web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": to})


def cookie_path(links: Links) -> str:
    """Return the path of the console's cookies: no other program on the host gets them."""
    return links.base or "/"


def _html(request: web.Request, body: Body, status: int) -> web.Response:
    if len(body.plain) < COMPRESS_FROM or not takes_gzip(request):
        return web.Response(body=body.plain, status=status, content_type="text/html", charset="utf-8")
    headers = {"Content-Encoding": "gzip"}
    return web.Response(body=body.zipped, status=status, content_type="text/html", charset="utf-8", headers=headers)
