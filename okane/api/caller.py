"""Who asks: the account whose payments a request may see and change, and under which name. The only place that knows."""

from __future__ import annotations

from aiohttp import web

from okane.api.access import Caller

CALLER = web.RequestKey("caller", Caller)  # on every route that takes a key


def account_of(request: web.Request) -> str:
    """The account of whoever sent a request."""
    return request[CALLER].account_id


def actor_of(request: web.Request) -> str:
    """Who is written into the history of what a request changes."""
    return request[CALLER].actor
