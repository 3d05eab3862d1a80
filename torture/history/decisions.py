"""The journal of people's decisions about payments and operations: what each was meant to change, and its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["ACTIONS", "Action", "Answer", "Decision"]

Action = Literal["canceled", "resolved", "retried"]  # the events that decisions write
# `done`: this decision has changed it; `known`: a decision that means the same has; `lost`: there was no clear answer.
Answer = Literal["done", "known", "refused", "lost"]

ACTIONS: frozenset[str] = frozenset({"canceled", "resolved", "retried"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One decision about a payment or an operation, the `subject`, and the answers to its tries.

    `seen` is the version that the person saw; None: the request named none. `actor` is the name that its event must have:
    that of no other decision, but where `seen` is None. `outcome` is the status that it leads to.
    """

    actor: str
    action: Action
    subject: str
    outcome: str
    seen: int | None
    answers: Sequence[Answer] = ()

    @property
    def is_done(self) -> bool:
        return "done" in self.answers

    @property
    def is_refused(self) -> bool:
        """True if it was refused, and no try before can have changed anything."""
        return bool(self.answers) and set(self.answers) == {"refused"}
