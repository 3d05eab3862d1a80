"""Errors as pages: each says what is wrong, and changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus

import structlog
from aiohttp import web

from okane.console.outages import Outage
from okane.console.rendering import PAGES, is_part, render
from okane.errors import AccountBusy, PaymentArchived, PaymentNotFound, StoreBusy, StoreSlow, StoreUnavailable
from streams import StreamError

log = structlog.get_logger("okane.console")

IS_BEGUN = web.RequestKey("is_begun", bool)  # the action of the request is in the audit table

_READING = frozenset({"GET", "HEAD"})
_NO_HEADERS: Mapping[str, str] = {}


class PageError(Exception):
    """A request is answered with an error page of this status and text, and the time since which a server is away."""

    def __init__(
        self, status: int, text: str, *, headers: Mapping[str, str] = _NO_HEADERS, since: datetime | None = None
    ) -> None:
        super().__init__(text)
        self.since = since
        self.status = HTTPStatus(status)
        self.text = text
        self.headers = headers


def error_page(request: web.Request, error: Exception) -> web.StreamResponse:
    """Return the answer to a request that raised an error; of a live region, its text alone."""
    if isinstance(error, web.HTTPException) and error.status < 400:
        return error
    found = _page_error(request, error)
    if found.status is HTTPStatus.INTERNAL_SERVER_ERROR:
        log.exception("console_error", path=request.path, exc_info=error)
    if is_part(request):
        return web.Response(status=found.status, text=found.text, headers=found.headers)
    context = {"title": heading_of(found.status), "text": found.text, "since": found.since}
    return render(request, "error.html", status=found.status, headers=found.headers, **context)


def heading_of(status: HTTPStatus) -> str:
    """Return the status as a heading in sentence case: `Not found`, `Request-URI too long`."""
    first, *others = status.phrase.split()
    return " ".join([first, *(word if word.isupper() else word.lower() for word in others)])


def refusal_in(request: web.Request, error: Exception) -> PageError | None:
    """Return the answer by which an action was refused, None where it failed: it may have been done."""
    found = _page_error(request, error)
    return found if found is error or found.status < HTTPStatus.INTERNAL_SERVER_ERROR else None


def _page_error(request: web.Request, error: Exception) -> PageError:
    match error:
        case PageError():
            return error
        case PaymentArchived():
            return PageError(HTTPStatus.GONE, "Payments of this time were archived: they are in files.")
        case PaymentNotFound():
            # One answer for a payment of another account and for none, so that it does not tell which ids exist.
            return PageError(HTTPStatus.NOT_FOUND, "This account has no such payment.")
        case AccountBusy():
            return PageError(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}. Try again.", headers={"Retry-After": "1"})
        case StoreSlow():
            return _slow(request)
        case StoreBusy():
            return _away("Postgres was too busy to answer. Try again.")
        case StoreUnavailable():
            return _silent("Postgres", request, request.app[PAGES].outages.postgres)
        case StreamError():
            return _silent("Redis", request, request.app[PAGES].outages.redis)
        case TimeoutError():
            return _away(f"No answer in time. {'Try again.' if request.method in _READING else _done(request)}")
        case web.HTTPMethodNotAllowed():
            return PageError(error.status, "This page does not take that method.", headers={"Allow": _allowed(error)})
        case web.HTTPNotFound():
            return PageError(error.status, "There is no such page.")
        case web.HTTPException():
            return PageError(error.status, "The console does not take this request.")
    return PageError(HTTPStatus.INTERNAL_SERVER_ERROR, "This is a fault of the console. Its log has the reason.")


def _silent(server: str, request: web.Request, outage: Outage) -> PageError:
    """Return the page for a server that does not answer."""
    if request.method in _READING:
        found = _away(f"{server} does not answer, so this page cannot be read.")
    else:
        found = _away(f"{server} does not answer. {_done(request)}")
    found.since = outage.since
    return found


def _slow(request: web.Request) -> PageError:
    """Return the page for a statement that Postgres ended: it answers others."""
    if request.method in _READING:
        return _away("Postgres works, but reading this took too long. Try again, or ask for less by a filter.")
    return _away(f"Postgres works, but a statement took too long. {_done(request)}")


def _done(request: web.Request) -> str:
    """Return what is known of an action that failed. Each is written down before it begins."""
    return "The action may or may not have been done." if request.get(IS_BEGUN) else "Nothing was changed."


def _away(text: str) -> PageError:
    return PageError(HTTPStatus.SERVICE_UNAVAILABLE, text, headers={"Retry-After": "2"})


def _allowed(error: web.HTTPMethodNotAllowed) -> str:
    return ", ".join(sorted(error.allowed_methods))
