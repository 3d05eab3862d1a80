"""Answers to requests that a web page of another origin makes a browser send, where no API keys are asked for."""

from __future__ import annotations

from http import HTTPStatus

from multidict import CIMultiDictProxy

from okane.api.problems import Problem
from okane.origin_guard import OriginGuard, Refusal

_CROSS_SITE = "a web page of another origin may not use this API without keys (Origin, Sec-Fetch-Site)"
_HOST = "Host names neither this machine nor a name in OKANE_ALLOWED_HOSTS, as is asked of requests without keys"


def check(guard: OriginGuard, headers: CIMultiDictProxy[str]) -> None:
    """Raise Problem if `guard` does not let a request with these headers pass."""
    refusal = guard.refusal(
        headers.getall("Host", ()), headers.getall("Origin", ()), headers.getall("Sec-Fetch-Site", ())
    )
    match refusal:
        case Refusal.CROSS_SITE:
            raise Problem(HTTPStatus.FORBIDDEN, "cross_site_request", _CROSS_SITE)
        case Refusal.HOST:
            raise Problem(HTTPStatus.MISDIRECTED_REQUEST, "host_not_allowed", _HOST)
