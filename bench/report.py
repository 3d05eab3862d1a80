"""The report: figures and ratios by part, each with its rounds. Pure but for `Collector`.

A ratio is made within a round, of two figures measured one right after the other, and its median counts: a machine that
is slower in one round is so for both.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing measured, once a round."""

    name: str
    unit: str
    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def to_json(self) -> dict[str, object]:
        return {"name": self.name, "unit": self.unit, "median": self.median, "rounds": list(self.rounds)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The result of one part. `notes` say what a reader must know, first of all what was not measured and why."""

    letter: str
    title: str
    figures: Sequence[Figure]
    notes: Sequence[str]

    def find(self, name: str) -> Figure | None:
        return next((figure for figure in self.figures if figure.name == name), None)

    def to_json(self) -> dict[str, object]:
        return {
            "title": self.title,
            "figures": [figure.to_json() for figure in self.figures],
            "notes": list(self.notes),
        }


class Collector:
    """Takes the figures of one part as they are measured."""

    def __init__(self, letter: str, title: str) -> None:
        self._letter = letter
        self._title = title
        self._rounds: dict[str, list[float]] = {}
        self._units: dict[str, str] = {}
        self._notes: dict[str, None] = {}

    def add(self, name: str, unit: str, value: float) -> float:
        """One round's value, handed back."""
        self._rounds.setdefault(name, []).append(value)
        self._units[name] = unit
        return value

    def note(self, text: str) -> None:
        """Once is enough: a repeated note is the same note."""
        self._notes[text] = None

    def ratio(self, name: str, *, of: str, to: str) -> None:
        """A figure made of two others, round by round. Left out, with a note, if one of them is not there."""
        if missing := [one for one in (of, to) if one not in self._rounds]:
            self.note(f"{name}: not known, without {', '.join(missing)}")
            return
        pairs = zip(self._rounds[of], self._rounds[to], strict=True)
        self._rounds[name] = [mine / theirs for mine, theirs in pairs]
        self._units[name] = "x"

    def medians(self) -> Mapping[str, float]:
        return {name: statistics.median(rounds) for name, rounds in self._rounds.items()}

    def part(self) -> Part:
        return Part(letter=self._letter, title=self._title, figures=list(self._figures()), notes=list(self._notes))

    def _figures(self) -> Iterator[Figure]:
        for name, rounds in self._rounds.items():
            yield Figure(name, self._units[name], tuple(rounds))


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything of one run."""

    machine: Mapping[str, str]
    quick: bool
    parts: Sequence[Part]

    def find(self, letter: str, name: str) -> Figure | None:
        return next((part.find(name) for part in self.parts if part.letter == letter), None)

    def to_json(self) -> dict[str, object]:
        return {
            "machine": dict(self.machine),
            "quick": self.quick,
            "parts": {part.letter: part.to_json() for part in self.parts},
        }
