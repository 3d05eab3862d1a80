"""The screens: one row for each page and each action, with the scope that it needs and its handler."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aiohttp.typedefs import Handler

from okane.api_key import Scope
from okane.console.gate import Screen
from okane.console.login import LoginScreens
from okane.console.services import ConsoleServices


class Screens:
    """The handlers of all screens."""

    def __init__(self, services: ConsoleServices, login: LoginScreens) -> None:
        self.services = services
        self.login = login


Row = tuple[Screen, Callable[[Screens], Handler]]

_READ, _WRITE, _OPERATE, _SYSTEM, _WEBHOOKS = Scope.READ, Scope.WRITE, Scope.OPERATE, Scope.SYSTEM, Scope.WEBHOOKS

SCREENS: Sequence[Row] = (
    (Screen("GET", "/login", None, public=True), lambda to: to.login.show),
    (Screen("POST", "/login", None, public=True), lambda to: to.login.log_in),
    (Screen("POST", "/logout", None, "log out", changes=False), lambda to: to.login.log_out),
)
