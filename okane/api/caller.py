"""Who asks: the account whose payments a request may see and change. The only place that knows."""

from __future__ import annotations

from aiohttp import web

ACCOUNT = "default"  # one account until there are keys


def account_of(_request: web.Request) -> str:
    """The account of whoever sent a request."""
    return ACCOUNT
