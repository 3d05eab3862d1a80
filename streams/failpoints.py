"""Failpoints: named places where a test makes the process die, stop, wait or fail.

A place declares its point once and runs `if POINT.armed: await POINT.hit()`. Unarmed, that costs one attribute access.
"""

from __future__ import annotations

import asyncio
import enum
import os
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

_SPEC = re.compile(
    r"(?P<name>[\w.]+):(?P<action>kill|stop|delay|raise)(?:=(?P<seconds>\d+(?:\.\d+)?))?(?::(?P<nth>\d+|\*))?"
)
_DELAY_S = 1.0


class FailpointRaised(Exception):
    """The error of a failpoint whose place names no other."""


class Action(enum.StrEnum):
    """The action of an armed failpoint."""

    KILL = "kill"  # kill -9 of this process
    STOP = "stop"  # SIGSTOP: the process sleeps until a SIGCONT
    DELAY = "delay"
    RAISE = "raise"


@dataclass(frozen=True, slots=True)
class Plan:
    """The action at the `nth` hit; None: at every hit."""

    action: Action
    nth: int | None
    delay_s: float


@dataclass(slots=True, eq=False)
class Failpoint:
    """One place. `raises` is the error of a failure there."""

    name: str
    meaning: str
    raises: type[Exception] = FailpointRaised
    armed: bool = False
    hits: int = 0
    _plan: Plan | None = field(default=None, repr=False)

    def arm(self, plan: Plan) -> None:
        """Act from now on; hits count from here."""
        self._plan, self.hits, self.armed = plan, 0, True

    def disarm(self) -> None:
        """Stop acting."""
        self._plan, self.armed = None, False

    async def hit(self) -> None:
        """Act if the plan says so for this hit. Do nothing unarmed."""
        plan = self._plan
        if plan is None:
            return
        self.hits += 1
        if plan.nth is not None and plan.nth != self.hits:
            return
        match plan.action:
            case Action.KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            case Action.STOP:
                os.kill(os.getpid(), signal.SIGSTOP)
            case Action.DELAY:
                await asyncio.sleep(plan.delay_s)
            case Action.RAISE:
                raise self.raises(f"failpoint {self.name}")


_declared: Final[dict[str, Failpoint]] = {}


def failpoint(name: str, meaning: str, *, raises: type[Exception] = FailpointRaised) -> Failpoint:
    """Declare a point. Raises ValueError if the name is taken."""
    if name in _declared:
        raise ValueError(f"failpoint {name!r} is declared twice")
    _declared[name] = point = Failpoint(name, meaning, raises)
    return point


def declared() -> Mapping[str, Failpoint]:
    """Return all points of the modules imported so far, by name."""
    return MappingProxyType(_declared)


def arm(spec: str) -> None:
    """Arm the points of `spec`: `name:action[:nth]`, several joined by commas.

    The action is `kill`, `stop`, `raise`, `delay` (a second) or `delay=SECONDS`; `nth` counts hits from 1 (the default),
    and `*` means every hit. Raises ValueError without arming anything.
    """
    plans = [_parse(part.strip()) for part in spec.split(",")]
    for point, plan in plans:
        point.arm(plan)


def disarm_all() -> None:
    """Disarm every point."""
    for point in _declared.values():
        point.disarm()


def _parse(part: str) -> tuple[Failpoint, Plan]:
    match = _SPEC.fullmatch(part)
    if match is None or (match["seconds"] and match["action"] != "delay") or match["nth"] == "0":
        raise ValueError("expected a failpoint: name:kill|stop|raise|delay[=seconds][:nth]")
    point = _declared.get(match["name"])
    if point is None:
        raise ValueError(f"there is no such failpoint; there are: {', '.join(sorted(_declared))}")
    nth = match["nth"] or "1"
    delay_s = float(match["seconds"] or _DELAY_S)
    return point, Plan(Action(match["action"]), None if nth == "*" else int(nth), delay_s)
