"""Actions: a POST that has passed the gate runs, is in the audit table before and after, and ends with a redirect.

Guarantee: no action runs whose beginning could not be written. One whose process died is there without an answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp import web

from okane.console.client_address import ORIGIN
from okane.console.form_body import read_form
from okane.console.gate import SCREEN
from okane.console.page_errors import IS_BEGUN, refusal_in
from okane.console.rendering import PAGES, cookie_path, redirect
from okane.console.session import MESSAGE_COOKIE, session_of
from okane.errors import StoreUnavailable
from okane.store.console_audit import AuditEntry, ConsoleAuditStore

log = structlog.get_logger("okane.console")

AUDIT = web.AppKey("audit", ConsoleAuditStore)
MESSAGE_S = 60  # a message that no page has shown by then is dropped


@dataclass(frozen=True, slots=True)
class Done:
    """An action was done: the browser goes to the address `to`, whose page shows `message` once.

    `answer` and `count` (payments that were changed) are for the audit table.
    """

    message: str
    to: str
    answer: str = "done"
    count: int | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """An action ends with a page of its own: a conflict, or the counts of a dry run."""

    response: web.Response
    answer: str
    count: int | None = None


Form = Mapping[str, str]
Run = Callable[[Form], Awaitable[Done | Shown]]


async def form_of(request: web.Request) -> Form:
    """Return the fields of the form, of each the first one. They are texts: the gate refuses files."""
    posted = await read_form(request)
    return {name: str(posted[name]) for name in posted if name != "csrf"}


async def perform(
    request: web.Request,
    run: Run,
    *,
    target: str = "",
    filter: Mapping[str, Any] | None = None,  # noqa: A002 - its column
) -> web.StreamResponse:
    """Run an action and return the answer. `run` gets the fields of the form, and raises PageError to refuse.

    `target` names what the action is for, `filter` the payments of an action on many.
    """
    session, audit = session_of(request), request.app[AUDIT]
    entry = AuditEntry(
        key=session.key,
        session=session.id,
        address=session.address,
        action=request[SCREEN].action,
        target=target,
        filter=filter,
    )
    action_id = await audit.begin(entry)
    request[IS_BEGUN] = True
    try:
        result = await run(await form_of(request))
    except Exception as error:
        refusal = refusal_in(request, error)
        await _answer(
            audit, action_id, f"failed: {type(error).__name__}" if refusal is None else f"refused: {refusal.text}"
        )
        raise
    await _answer(audit, action_id, result.answer, count=result.count)
    if isinstance(result, Shown):
        return result.response
    return redirect_with_message(request, result.to, result.message)


def redirect_with_message(request: web.Request, to: str, message: str) -> web.StreamResponse:
    """Return a redirect to a page that shows a message once."""
    pages = request.app[PAGES]
    response = redirect(to)
    value = pages.signer.write_message(message, session_of(request).id)
    response.set_cookie(
        MESSAGE_COOKIE,
        value,
        path=cookie_path(pages.links),
        max_age=MESSAGE_S,
        httponly=True,
        samesite="Strict",
        secure=request[ORIGIN].is_https,
    )
    return response


async def _answer(audit: ConsoleAuditStore, action_id: int, answer: str, *, count: int | None = None) -> None:
    """Write the answer to an action. It has happened: a Postgres that is away now does not change what the page says."""
    try:
        await audit.answer(action_id, answer, count=count)
    except StoreUnavailable as error:
        log.warning("console_audit_unwritten", action=action_id, reason=str(error))
