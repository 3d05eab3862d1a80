"""The problems of an unknown route (404) and of a method that a route does not take (405), with the nearest route. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from http import HTTPStatus

from aiohttp import web

from okane.api.problems import Problem

_LONGEST = 80  # characters of a path that are compared, and of a path or method that are repeated: no route has more
# A part that looks like an id: to compare it would cost more than all the rest.
_ID = re.compile("(?<=/)[^/]*[0-9][^/]{7,}")
_PARAMETER = re.compile(r"\{[^}]*\}")


class RouteSuggestions:
    """Suggests the nearest route to a path that matches none."""

    def __init__(self, routes: Iterable[tuple[str, str]]) -> None:
        self._methods: dict[str, list[str]] = {}
        for method, path in sorted(routes):
            self._methods.setdefault(path, []).append(method)
        self._by_spelling = {_PARAMETER.sub("*", path): path for path in self._methods}

    def not_found(self, path: str) -> Problem:
        """Return the 404 for a path that no route has."""
        detail = f"there is no route {path[:_LONGEST]}"
        nearest = self._nearest(path)
        if nearest is not None:
            detail += f"; the nearest is {' or '.join(self._methods[nearest])} {nearest}"
        return Problem(HTTPStatus.NOT_FOUND, "route_not_found", f"{detail}; GET /docs has all of them")

    def _nearest(self, path: str) -> str | None:
        found = difflib.get_close_matches(_ID.sub("*", path[:_LONGEST].rstrip("/")), self._by_spelling, n=1)
        return self._by_spelling[found[0]] if found else None


def not_allowed(error: web.HTTPMethodNotAllowed) -> Problem:
    """Return the 405 for a method that a route does not take."""
    allowed = error.headers["Allow"]
    detail = f"this route takes {allowed.replace(',', ', ')}, and not {error.method[:_LONGEST]}"
    return Problem(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", detail, headers={"Allow": allowed})
