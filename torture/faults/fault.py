"""The description of a fault: its name, targets and requirements, and the context manager that makes and heals it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from torture.schedule import Card, Step
from torture.system.cluster import Cluster
from torture.system.shape import Shape

Made = Callable[[Cluster, Step], AbstractAsyncContextManager[None]]


def _nothing() -> str | None:
    return None


def _target(step: Step, _shape: Shape) -> Sequence[str]:
    return (step.target,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One kind of fault. `made` makes it on entry and heals it on exit; in between it is held.

    `targets` are its possible targets; no other fault strikes those of `touches` meanwhile; `why_not` returns the reason if
    this machine does not support it. A fault with a `hold_s` of zero strikes and is over.
    """

    name: str
    meaning: str
    targets: Callable[[Shape], Sequence[str]]
    made: Made
    hold_s: tuple[float, float] = (0.0, 0.0)
    weight: int = 1
    touches: Callable[[Step, Shape], Sequence[str]] = _target
    needs: str = ""
    why_not: Callable[[], str | None] = _nothing

    @property
    def lasting(self) -> bool:
        """Return True if it is held for a time."""
        return self.hold_s[1] > 0

    def card(self, shape: Shape) -> Card:
        """Return its card for the deck of a schedule."""
        return Card(fault=self.name, targets=self.targets(shape), hold_s=self.hold_s, weight=self.weight)


def only(target: str) -> Callable[[Shape], Sequence[str]]:
    """Return a function for a single target."""
    return lambda _shape: (target,)
