"""Refuses requests that a web page of another origin makes a browser send, for servers without API keys."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from aiohttp import web

from okane.api.problems import Problem
from okane.origin_guard import OriginGuard, Refusal

_CROSS_SITE = "a web page of another origin may not use this API without keys (Origin, Sec-Fetch-Site)"
_HOST = "Host names neither this machine nor a name in OKANE_ALLOWED_HOSTS, which a server without keys requires"


def check_origin(guard: OriginGuard, request: web.BaseRequest) -> None:
    """Raise Problem if `guard` refuses this request."""
    headers = request.headers
    match guard.refusal(_hosts(request), headers.getall("Origin", ()), headers.getall("Sec-Fetch-Site", ())):
        case Refusal.CROSS_SITE:
            raise Problem(HTTPStatus.FORBIDDEN, "cross_site_request", _CROSS_SITE)
        case Refusal.HOST:
            raise Problem(HTTPStatus.MISDIRECTED_REQUEST, "host_not_allowed", _HOST)


def _hosts(request: web.BaseRequest) -> Sequence[str]:
    """Return the hosts in `Host` and in a target in absolute form, which overrides it (RFC 9112, 3.2.2)."""
    hosts = request.headers.getall("Host", ())
    return hosts if request.raw_path.startswith("/") else (*hosts, request.url.raw_authority)
