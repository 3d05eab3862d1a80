"""Payment ids in paths and bodies, in okane's spelling (a UUID) and the older queue's (`pay_` and 32 digits)."""

from __future__ import annotations

import re
from http import HTTPStatus
from uuid import UUID

from aiohttp import web

from okane.api.problems import Problem

_ID = re.compile(r"(pay_)?([0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})")
ID = {"type": "string", "pattern": f"^{_ID.pattern}$"}  # the JSON Schema


def parse_id(text: str) -> UUID | None:
    """Return the id that a text spells, or None. (`UUID` itself accepts braces, a urn, and any script's digits.)"""
    return UUID(text.removeprefix("pay_")) if _ID.fullmatch(text) else None


def id_in_path(request: web.Request) -> UUID:
    """Return the payment id in a request's path. Raises a 404 Problem if it is not one."""
    text = request.match_info["payment_id"]
    found = parse_id(text)
    if found is None:
        raise Problem(HTTPStatus.NOT_FOUND, "payment_not_found", f"there is no payment {text[:64]!r}")
    return found
