"""Payment ids in paths, and their JSON Schema."""

from __future__ import annotations

from http import HTTPStatus
from uuid import UUID

from aiohttp import web

from okane.api.problems import Problem
from okane.payment_id import PATTERN, parse_id

ID = {"type": "string", "pattern": f"^{PATTERN}$"}


def id_in_path(request: web.Request) -> UUID:
    """Return the payment id in a request's path. Raises a 404 Problem if it is not one."""
    text = request.match_info["payment_id"]
    found = parse_id(text)
    if found is None:
        raise Problem(HTTPStatus.NOT_FOUND, "payment_not_found", f"there is no payment {text[:64]!r}")
    return found
