"""Every way of breaking an invariant of people's decisions is caught, and named as that invariant alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from okane.operation import OperationKind
from tests.faults import operation_histories
from tests.faults.histories import Spoil, Story, story, with_event, with_story
from tests.faults.operation_histories import told
from torture.history.decisions import Decision
from torture.history.journals import History
from torture.invariants.decisions import count_decided
from torture.invariants.verdict import check

OF_DECISIONS = {"I33", "I34"}


def decided(subject: str, action: Any, outcome: str, seen: int | None, **changes: Any) -> Decision:
    """The decision of one person, acknowledged unless something else is said."""
    answers = changes.pop("answers", ("done",))
    made = Decision(actor="operator 1", action=action, subject=subject, outcome=outcome, seen=seen, answers=answers)
    return replace(made, **changes)


def by(actor: str, version: int, one: Story) -> Story:
    """The event of this version was written by this person."""
    events = [replace(line, actor=actor) if line.version == version else line for line in one.events]
    return replace(one, events=events)


REVIEWED = "claimed", "needs_review", "resolved:1:success"
STORIES: Sequence[Story] = (
    by("operator 1", 3, story("again", "claimed", "spent", "retried", "claimed", "success")).charged(after_claim=2),
    by("operator 1", 3, story("lost", "claimed", "spent", "retried", "claimed", "spent")),
    by("operator 1", 1, story("withdrawn", "canceled")),
    by("operator 1", 3, story("reviewed", *REVIEWED)).charged(),
    by("api", 3, story("asked", "claimed", "spent", "retried", "claimed", "spent")),
    story("failed", "claimed", "spent"),
    story("late", "claimed", "claimed", "spent", "late_result:1:needs_review", reason="late success").charged(),
)
DECISIONS: Sequence[Decision] = (
    decided("id-again", "retried", "pending", 2),
    decided("id-again", "retried", "pending", 2, actor="operator 2", answers=("refused",)),
    decided("id-lost", "retried", "pending", 2, answers=("lost", "refused")),  # the first try had done it
    decided("id-lost", "retried", "pending", 2, actor="operator 2", answers=("lost", "lost")),
    decided("id-withdrawn", "canceled", "canceled", 0, answers=("lost", "done")),
    decided("id-withdrawn", "canceled", "canceled", 0, actor="operator 2", answers=("known",)),
    decided("id-reviewed", "resolved", "success", 2),
    decided("id-asked", "retried", "pending", None, actor="api", answers=("lost", "refused")),
    decided("id-failed", "retried", "pending", 1, answers=("refused",)),
    decided("op-retried", "retried", "pending", 2),
    decided("op-withdrawn", "canceled", "canceled", 2, actor="w1", answers=("done",)),
)
RETRIED = told("retried", OperationKind.REFUND, "parts", 100, "claimed", "declined", "retried:pending")


def good() -> History:
    """People decide, some of them twice, and some at the same time."""
    operations = operation_histories.history_of([*operation_histories.OPERATIONS, RETRIED]).operations
    lines = [replace(line, actor="operator 1") if line.version == 3 else line for line in RETRIED.events]
    return History(
        rows={one.row.id: one.row for one in STORIES},
        events={one.row.id: one.events for one in STORIES},
        charges=[charge for one in STORIES for charge in one.charges],
        operations=replace(operations, events={**operations.events, "op-retried": lines}),
        decisions=DECISIONS,
    )


def with_decision(subject: str, **changes: Any) -> Spoil:
    """Something else about the first decision about it."""

    def spoil(history: History) -> History:
        decisions = list(history.decisions or ())
        place = next(number for number, one in enumerate(decisions) if one.subject == subject)
        decisions[place] = replace(decisions[place], **changes)
        return replace(history, decisions=decisions)

    return spoil


def without_decision(subject: str) -> Spoil:
    """Nobody has decided about it."""
    return lambda history: replace(
        history, decisions=[one for one in history.decisions or () if one.subject != subject]
    )


BROKEN: dict[str, tuple[str, Callable[[History], History]]] = {
    "acknowledged, and not in the history": ("I33", with_decision("id-failed", answers=("done",))),
    "known already, and not in the history": ("I33", with_decision("id-failed", answers=("lost", "known"))),
    "acknowledged at the API, and not in the history": (
        "I33",
        with_decision("id-failed", actor="api", seen=None, answers=("done",)),
    ),
    "applied twice after a lost answer": (
        "I33",
        with_story(
            by("operator 1", 5, by("operator 1", 3, story("lost", "claimed", "spent", "retried", "claimed", "retried")))
        ),
    ),
    "two requests to the API applied as three": (
        "I33",
        with_story(
            by("api", 5, by("api", 3, story("asked", "claimed", "spent", "retried", "claimed", "retried", "claimed")))
        ),
    ),
    "applied to a version that nobody saw": ("I33", with_decision("id-again", seen=1)),
    "refused, and applied": ("I33", with_decision("id-again", answers=("refused",))),
    "decided as the other outcome": ("I33", with_decision("id-reviewed", outcome="failed_final", answers=("lost",))),
    "an operation retried by a refused request": ("I33", with_decision("op-retried", answers=("refused", "refused"))),
    "a retry that nobody made": ("I34", without_decision("id-again")),
    "a retry under another name": ("I34", with_event("lost", 3, actor="operator 9")),
    "an operation retried by a worker": ("I34", without_decision("op-retried")),
    "a success that became a failure": ("I34", with_story(story("x", "claimed", "success", "declined").charged())),
    "a review that ended by itself": ("I34", with_story(story("x", "claimed", "needs_review", "spent"))),
}


@pytest.mark.parametrize(("invariant", "spoil"), BROKEN.values(), ids=BROKEN)
def test_each_way_of_breaking_an_invariant_is_caught_as_that_alone(invariant: str, spoil: Spoil) -> None:
    verdict = check(spoil(good()))
    found = {violation.invariant for violation in verdict.violations if violation.invariant in OF_DECISIONS}
    assert found == {invariant}, verdict.violations


def test_decisions_that_race_and_repeat_hold() -> None:
    verdict = check(good())
    assert [one for one in verdict.violations if one.invariant in OF_DECISIONS] == []
    assert not OF_DECISIONS & set(verdict.not_judged)
    assert count_decided(good()) == 7


def test_a_history_whose_decisions_are_not_known_is_not_judged() -> None:
    verdict = check(replace(good(), decisions=None))
    assert set(verdict.not_judged) >= OF_DECISIONS
    assert [one for one in verdict.violations if one.invariant in OF_DECISIONS] == []
