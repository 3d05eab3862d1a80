"""The schedule of faults: names, targets, durations, order. Pure: the same for the same seed and options.

Faults are dealt from a deck that is shuffled anew whenever it is used up, so that every fault comes round however short the
run; the targets of each fault likewise. When a step begins in real time depends on the machine: see nemesis.py.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One kind of fault in the deck: `weight` cards of it, dealt on `targets` in turn, each held for `hold_s`."""

    fault: str
    targets: Sequence[str]
    hold_s: tuple[float, float] = (0.0, 0.0)
    weight: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One fault to make, `pause_s` after the step before it, and to heal after `hold_s`. `roll` in [0, 1) is its dice."""

    number: int
    pause_s: float
    fault: str
    target: str
    hold_s: float
    roll: float


def schedule(cards: Sequence[Card], *, seed: int, pause_s: float) -> Iterator[Step]:
    """Yield steps without end, `pause_s` apart on average. Without cards there are none."""
    dice = random.Random(f"schedule {seed}")
    cards = [card for card in cards if card.targets]
    targets = {card.fault: _dealt(card.targets, dice.random()) for card in cards}
    deck = _dealt([card for card in cards for _ in range(card.weight)], dice.random())
    for number, card in enumerate(deck):
        yield Step(
            number=number,
            # Between bursts and lulls: half as long to half as long again.
            pause_s=round(pause_s * dice.uniform(0.5, 1.5), 3),
            fault=card.fault,
            target=next(targets[card.fault]),
            hold_s=round(dice.uniform(*card.hold_s), 3),
            roll=dice.random(),
        )


def pick(choices: Sequence[T], roll: float) -> T:
    """Return one of `choices`, by a roll in [0, 1)."""
    return choices[int(roll * len(choices))]


def _dealt(cards: Sequence[T], seed: float) -> Iterator[T]:
    """Yield all of `cards` in a random order, then all of them in another one, and so on."""
    dice = random.Random(seed)
    while cards:
        yield from dice.sample(cards, len(cards))
