"""Log-in and log-out: an API key is exchanged for a session."""

from __future__ import annotations

from http import HTTPStatus

import structlog
from aiohttp import web

from okane import api_key
from okane.console.client_address import ORIGIN
from okane.console.form_body import read_form
from okane.console.gate import Gate
from okane.console.login_limit import LoginLimit
from okane.console.rendering import Pages, cookie_path, redirect, render
from okane.console.session import COOKIE, session_of
from okane.console.session_keys import SessionKeys
from okane.errors import StoreUnavailable
from okane.store.console_audit import AuditEntry, ConsoleAuditStore

log = structlog.get_logger("okane.console")

ENDED = "This session has ended, or is none of this console. Nothing was changed: log in again."
MAX_SECRET = 200  # characters; a key has 85


class LoginScreens:
    """`/login` and `/logout`. `keys` is None where no log-in is needed."""

    def __init__(
        self, *, pages: Pages, gate: Gate, keys: SessionKeys | None, limit: LoginLimit, audit: ConsoleAuditStore
    ) -> None:
        self._pages = pages
        self._gate = gate
        self._keys = keys
        self._limit = limit
        self._audit = audit

    async def show(self, request: web.Request) -> web.StreamResponse:
        """`GET /login`: the form; with a session, the page that it was for."""
        wanted = self._wanted(request.query.get("next", ""))
        if await self._gate.session_in(request) is not None:
            return redirect(wanted)
        problem = ENDED if request.query.get("ended") == "1" else None
        return render(request, "login.html", wanted=wanted, problem=problem)

    async def log_in(self, request: web.Request) -> web.StreamResponse:
        """`POST /login`: start a session, and return to the page that it was for."""
        form = await read_form(request)
        wanted = self._wanted(str(form.get("next", "")))
        if self._keys is None:
            return redirect(wanted)
        address = request[ORIGIN].address
        wait_s = await self._limit.wait_s(address)
        if wait_s:
            problem = f"Too many attempts to log in. Try again in {wait_s} s."
            return self._refuse(request, HTTPStatus.TOO_MANY_REQUESTS, wanted, problem, {"Retry-After": str(wait_s)})
        secret = str(form.get("key", "")).strip()
        prefix = api_key.prefix_of(secret) if len(secret) <= MAX_SECRET else None
        if prefix is None:
            return self._refuse(request, HTTPStatus.UNAUTHORIZED, wanted, "This is not an API key.")
        holder = await self._keys.log_in(secret, prefix)
        if isinstance(holder, str):
            entry = AuditEntry(key=prefix, session="", address=address, action="log in")
            await self._audit.note(entry, f"refused: {holder}")
            return self._refuse(request, HTTPStatus.UNAUTHORIZED, wanted, f"{holder[:1].upper()}{holder[1:]}.")
        ticket = self._pages.signer.new_ticket(prefix, self._pages.now())
        await self._audit.note(AuditEntry(key=prefix, session=ticket.id, address=address, action="log in"), "done")
        response = redirect(wanted)
        self._gate.set_session(request, response, ticket)
        return response

    async def log_out(self, request: web.Request) -> web.StreamResponse:
        """`POST /logout`: end the session."""
        session = session_of(request)
        self._gate.end_session(session.id)
        try:
            await self._audit.note_log_out(key=session.key, session=session.id, address=session.address)
        except StoreUnavailable as error:  # a session must end also while Postgres is away
            log.warning("console_audit_unwritten", action="log out", reason=str(error))
        response = redirect(self._pages.links.login())
        response.del_cookie(COOKIE, path=cookie_path(self._pages.links))
        return response

    def _wanted(self, text: str) -> str:
        return self._pages.links.own_path(text)

    def _refuse(
        self, request: web.Request, status: HTTPStatus, wanted: str, problem: str, headers: dict[str, str] | None = None
    ) -> web.Response:
        return render(request, "login.html", status=status, headers=headers, wanted=wanted, problem=problem)
