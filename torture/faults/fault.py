"""What a fault is: a name, whom it may strike, what it needs, and how it is made and healed."""

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
    """One kind of fault. `made` makes it when it is entered and heals it when it is left; in between it is held.

    `targets` are what it may strike; `touches` what nobody else may strike meanwhile; `why_not` says why this machine
    cannot have it. A fault that is not held (`hold_s` is zero) strikes and is over.
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
        """Whether it is held for a time."""
        return self.hold_s[1] > 0

    def card(self, shape: Shape) -> Card:
        """Its place in the deck of a schedule."""
        return Card(fault=self.name, targets=self.targets(shape), hold_s=self.hold_s, weight=self.weight)


def only(target: str) -> Callable[[Shape], Sequence[str]]:
    """There is one of these."""
    return lambda _shape: (target,)
