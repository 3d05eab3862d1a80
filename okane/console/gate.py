"""The gate in front of every screen: session, scope, and for a POST the checks that only the console's own pages pass.

Guarantee: no handler of a screen runs before its checks have passed. A POST with a session that is refused is in the audit
table.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal
from urllib.parse import urlsplit

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from okane.api_key import ACCOUNT, Scope
from okane.console.client_address import ORIGIN, Network, origin_of
from okane.console.form_body import FORM, read_form
from okane.console.outages import Outages
from okane.console.page_errors import IS_BEGUN, PageError, refusal_in
from okane.console.rendering import Pages, cookie_path, is_part, redirect
from okane.console.session import COOKIE, LIFETIME, SESSION, Session, Ticket
from okane.console.session_keys import KeyHolder, SessionKeys
from okane.deadline import Deadline
from okane.errors import StoreBusy, StoreUnavailable
from okane.origin_guard import OriginGuard
from okane.store.console_audit import AuditEntry, ConsoleAuditStore
from streams import StreamError

log = structlog.get_logger("okane.console")

REQUEST_TIMEOUT_S = 10.0  # the longest that a request waits for silent servers
MAX_ENDED = 10_000  # sessions that were logged out


@dataclass(frozen=True, slots=True)
class Screen:
    """A page, or an action of one. `path` is under the base path. `scope` is None where any session will do.

    `action` names a POST in the audit table. `public`: without a session. `changes` is False for a POST that a read-only
    console takes. `extra_s`: that a request may take beyond the time of any. `needs`: the server without which there is no
    page, and which no request waits for while it hangs.
    """

    method: str
    path: str
    scope: Scope | None
    action: str = ""
    public: bool = False
    changes: bool = True
    extra_s: float = 0.0
    needs: Literal["postgres", "redis"] | None = None


SCREEN = web.RequestKey("screen", Screen)


class Gate:
    """Checks requests. `keys` is None without authentication: then every request has one session, with all scopes."""

    def __init__(
        self,
        *,
        pages: Pages,
        keys: SessionKeys | None,
        audit: ConsoleAuditStore,
        outages: Outages,
        proxies: tuple[Network, ...] = (),
        guard: OriginGuard | None = None,
    ) -> None:
        self._pages = pages
        self._keys = keys
        self._audit = audit
        self._outages = outages
        self._proxies = proxies
        self._guard = guard
        self._anonymous_id = secrets.token_hex(16)
        self._ended: dict[str, int] = {}  # sessions that were logged out, with the second at which they end anyway
        self._knows_ended = False  # those of the process before, whose sessions this one takes

    def guarded(self, screen: Screen, handler: Handler) -> Handler:
        """Return the handler of a screen behind the gate."""

        async def checked(request: web.Request) -> web.StreamResponse:
            with Deadline(REQUEST_TIMEOUT_S + screen.extra_s):
                request[SCREEN], request[ORIGIN] = screen, origin_of(request, self._proxies)
                self._check_host(request)
                if screen.public:
                    if request.method == "POST":
                        self.check_same_origin(request)
                        await read_form(request)
                    return await self._answer(request, screen, handler)
                session = await self.session_in(request)
                if session is None:
                    return self._to_login(request)
                request[SESSION] = session
                if request.method == "POST":
                    await self._check_action(request, screen, session)
                    return await self._act(request, screen, session, handler)
                if screen.scope is not None and not session.may(screen.scope):
                    return self._without_scope(screen.scope, request, session)
                return await self._answer(request, screen, handler)

        return checked

    async def _answer(self, request: web.Request, screen: Screen, handler: Handler) -> web.StreamResponse:
        """Run the handler, and note which servers do not answer it."""
        needed = None if screen.needs is None else getattr(self._outages, screen.needs)
        began_s = time.monotonic()
        if needed is not None and needed.is_silent():
            raise StoreUnavailable("it hangs") if screen.needs == "postgres" else StreamError("it hangs")
        try:
            response = await handler(request)
        except StoreBusy:
            raise
        except StoreUnavailable:
            self._outages.postgres.notice(time.monotonic() - began_s)
            raise
        except StreamError:
            self._outages.redis.notice(time.monotonic() - began_s)
            raise
        if needed is not None:
            needed.end()
        return response

    async def session_in(self, request: web.Request) -> Session | None:
        """Return the session of a request, or None. Raises StoreUnavailable."""
        address = request[ORIGIN].address
        if self._keys is None:
            return Session(key="", id=self._anonymous_id, account_id=ACCOUNT, scopes=frozenset(Scope), address=address)
        cookie = request.cookies.get(COOKIE)
        ticket = None if cookie is None else self._pages.signer.read_ticket(cookie, self._pages.now())
        if ticket is None:
            return None
        if not self._knows_ended:
            for one in await self._audit.logged_out(LIFETIME):
                self.end_session(one)
            self._knows_ended = True
        if ticket.id in self._ended:
            return None
        holder = await self._keys.holder(ticket.key)
        return None if holder is None else _session(ticket, holder, address)

    def set_session(self, request: web.Request, response: web.StreamResponse, ticket: Ticket) -> None:
        """Give the browser a session."""
        response.set_cookie(
            COOKIE,
            self._pages.signer.write_ticket(ticket),
            path=cookie_path(self._pages.links),
            max_age=int(LIFETIME.total_seconds()),
            httponly=True,
            # Strict would take the session from every link in a chat. No GET changes anything, and a POST needs a token.
            samesite="Lax",
            secure=request[ORIGIN].is_https,
        )

    def end_session(self, session_id: str) -> None:
        """Refuse the session from now on, also where its cookie was copied."""
        now_s = int(self._pages.now().timestamp())
        self._ended = {one: ends_s for one, ends_s in self._ended.items() if ends_s > now_s}
        if len(self._ended) >= MAX_ENDED:
            del self._ended[next(iter(self._ended))]
        self._ended[session_id] = now_s + int(LIFETIME.total_seconds())

    def check_same_origin(self, request: web.Request) -> None:
        """Raise PageError for a POST that no page of the console sent, or that is not a form."""
        sites = request.headers.getall("Sec-Fetch-Site", ())
        origins = request.headers.getall("Origin", ())
        own = request[ORIGIN]
        is_own = list(sites) == ["same-origin"] if sites else len(origins) == 1 and own.is_own(origins[0])
        if not is_own:
            raise PageError(
                HTTPStatus.FORBIDDEN,
                "This form did not come from a page of the console. Open the page again, and send it from there.",
            )
        if request.content_type != FORM:
            raise PageError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The console takes plain forms only.")

    async def _check_action(self, request: web.Request, screen: Screen, session: Session) -> None:
        """Raise PageError for an action that the session may not take, and write the refusal down."""
        try:
            self.check_same_origin(request)
            form = await read_form(request)
            self._check_permission(screen, session, str(form.get("csrf", "")))
        except PageError as error:
            await self._note_refusal(request, screen, session, error)
            raise
        if screen.changes and not session.checked:
            raise PageError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "Postgres does not answer, so actions are off. Nothing was changed.",
                headers={"Retry-After": "2"},
            )

    async def _act(
        self, request: web.Request, screen: Screen, session: Session, handler: Handler
    ) -> web.StreamResponse:
        """Run the handler of an action. One that it refuses before its beginning is written down is written down here."""
        try:
            return await self._answer(request, screen, handler)
        except Exception as error:
            refusal = refusal_in(request, error)
            if refusal is not None and not request.get(IS_BEGUN):
                await self._note_refusal(request, screen, session, refusal)
            raise

    def _check_permission(self, screen: Screen, session: Session, token: str) -> None:
        if not self._pages.signer.is_csrf_token(token, session.id):
            raise PageError(
                HTTPStatus.FORBIDDEN,
                "This form is of an earlier session. Open the page again, and send it from there.",
            )
        if self._pages.read_only and screen.changes:
            raise PageError(HTTPStatus.FORBIDDEN, "This console is read-only (OKANE_CONSOLE_READ_ONLY).")
        if screen.scope is not None and not session.may(screen.scope):
            raise _scope_missing(screen.scope)

    async def _note_refusal(self, request: web.Request, screen: Screen, session: Session, error: PageError) -> None:
        entry = AuditEntry(
            key=session.key,
            session=session.id,
            address=session.address,
            action=screen.action or screen.path.strip("/"),
            target=" ".join(request.match_info.values()),
        )
        try:
            await self._audit.note(entry, f"refused: {error.text}")
        except StoreUnavailable as unwritten:
            log.warning("console_audit_unwritten", action=entry.action, reason=str(unwritten))

    def _check_host(self, request: web.Request) -> None:
        if self._guard is not None and not self._guard.allows_host(request[ORIGIN].host):
            raise PageError(
                HTTPStatus.MISDIRECTED_REQUEST,
                "Host names neither this machine nor a name in OKANE_ALLOWED_HOSTS, which a console without keys requires.",
            )

    def _to_login(self, request: web.Request) -> web.StreamResponse:
        links = self._pages.links
        if is_part(request):
            raise PageError(HTTPStatus.UNAUTHORIZED, "The session has ended: log in again.")
        back = links.under_base(request.path_qs)
        if request.method == "POST":  # its address has no page: back to the one with the form
            back = links.own_path(_path_in(request.headers.get("Referer", "")))
        had_cookie = COOKIE in request.cookies
        response = redirect(links.login("" if back == links.overview() else back, ended=had_cookie))
        if had_cookie:
            response.del_cookie(COOKIE, path=cookie_path(links))
        return response

    def _without_scope(self, scope: Scope, request: web.Request, session: Session) -> web.StreamResponse:
        links = self._pages.links
        if links.under_base(request.path) == links.overview() and session.may(Scope.READ) and not is_part(request):
            return redirect(links.payments())  # the start page of keys that see one account
        raise _scope_missing(scope)


def _session(ticket: Ticket, holder: KeyHolder, address: str) -> Session:
    return Session(
        key=holder.key,
        id=ticket.id,
        account_id=holder.account_id,
        scopes=holder.scopes,
        address=address,
        checked=holder.checked,
    )


def _path_in(address: str) -> str:
    """Return path and query of an address, nothing if it is none."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    return parts.path + (f"?{parts.query}" if parts.query else "")


def _scope_missing(scope: Scope) -> PageError:
    return PageError(HTTPStatus.FORBIDDEN, f"This takes a key with the scope {scope.value}.")
