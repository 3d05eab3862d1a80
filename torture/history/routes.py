"""The journal of the routes: which rules the providers files had, and since when."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["RouteChange", "Rule", "to_toml"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule: its conditions, and its candidates. With `weights` each of them comes first for its share."""

    currency: str | None = None
    amount_from: int | None = None
    use: Sequence[str] = ()
    weights: Mapping[str, int] = field(default_factory=dict)

    def matches(self, amount_minor: int, currency: str) -> bool:
        """Return True if a payment of this amount meets its conditions."""
        return self.currency in (None, currency) and amount_minor >= (self.amount_from or 0)

    def may_choose(self, candidates: Sequence[str]) -> bool:
        """Return True if these may be the candidates of a payment that it matches."""
        return sorted(candidates) == sorted(self.weights) if self.weights else list(candidates) == list(self.use)


@dataclass(frozen=True, slots=True)
class RouteChange:
    """The rules that the files have from `at_s` on, since the epoch. Each API takes them in its own time."""

    at_s: float
    rules: Sequence[Rule]


def to_toml(rules: Sequence[Rule]) -> str:
    """Return the rules as a providers file has them."""
    return "".join(f"\n[[routes]]\n{_lines(rule)}" for rule in rules)


def _lines(rule: Rule) -> str:
    lines = [f'currency = "{rule.currency}"'] if rule.currency is not None else []
    if rule.amount_from is not None:
        lines.append(f"amount_from = {rule.amount_from}")
    if rule.weights:
        lines.append(f"weights = {{ {', '.join(f'{name} = {weight}' for name, weight in rule.weights.items())} }}")
    else:
        lines.append(f"use = {json.dumps(list(rule.use))}")
    return "".join(f"{line}\n" for line in lines)
