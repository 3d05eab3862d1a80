"""Every way of breaking an invariant of disputes is caught, and named as that invariant alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.faults.histories import Story, story
from torture.history.disputes import BookedDispute, DisputeHistory, DisputeRow, DisputeStep
from torture.history.journals import History
from torture.invariants.verdict import check

Spoil = Callable[[History], History]


def disputed(name: str, *words: str) -> Story:
    return story(name, "claimed::stripe", "success", *words).charged(provider="stripe")


OPENED, CLOSED = "dispute_opened", "dispute_closed"
STORIES = (disputed("open", OPENED), disputed("over", OPENED, CLOSED), disputed("late", CLOSED), disputed("other"))
BOOKED = (
    BookedDispute("du_open", "id-open", 1000, "USD", "under_review"),
    BookedDispute("du_over", "id-over", 600, "USD", "lost"),
    BookedDispute("du_late", "id-late", 1000, "USD", "closed"),
)
STEPS = (
    DisputeStep("id-open", 3, "du_open", "needs_response"),
    DisputeStep("id-over", 3, "du_over", "needs_response"),
    DisputeStep("id-over", 4, "du_over", "lost"),
    DisputeStep("id-late", 3, "du_late", "closed"),
)
ROWS = tuple(DisputeRow(one.ref, one.payment_id, one.amount_minor, one.currency, one.status) for one in BOOKED)


def good() -> History:
    """One that is open, one that was told twice, and one that was over when it was fetched first."""
    return History(
        rows={one.row.id: one.row for one in STORIES},
        events={one.row.id: one.events for one in STORIES},
        charges=[charge for one in STORIES for charge in one.charges],
        disputes=DisputeHistory(booked=BOOKED, rows=ROWS, steps=STEPS),
    )


def having(**changes: Any) -> Spoil:
    return lambda history: replace(history, disputes=replace(history.disputes, **changes))


def with_row(**changes: Any) -> Spoil:
    """Another row for the dispute that is over."""
    return having(rows=[replace(one, **changes) if one.ref == "du_over" else one for one in ROWS])


def with_words(name: str, *words: str, steps: tuple[DisputeStep, ...] = STEPS) -> Spoil:
    """Another timeline of this payment."""

    def spoil(history: History) -> History:
        one = disputed(name, *words)
        changed = replace(
            history, rows={**history.rows, one.row.id: one.row}, events={**history.events, one.row.id: one.events}
        )
        return having(steps=steps)(changed)

    return spoil


BROKEN: dict[str, tuple[str, Spoil]] = {
    "a dispute that is not there": (
        "I37",
        having(booked=[*BOOKED, BookedDispute("du_x", "id-other", 1, "USD", "won")]),
    ),
    "a dispute that is there twice": ("I37", having(rows=[*ROWS, ROWS[0]])),
    "a dispute of another payment": (
        "I37",
        having(booked=[replace(one, payment_id="id-other") if one.ref == "du_over" else one for one in BOOKED]),
    ),
    "a dispute of another amount": ("I37", with_row(amount_minor=601)),
    "a dispute in another currency": ("I37", with_row(currency="EUR")),
    "a state that an older notice has brought back": (
        "I37",
        having(booked=[replace(one, status="won") if one.ref == "du_over" else one for one in BOOKED]),
    ),
    "a dispute that nobody has made": ("I37", having(booked=BOOKED[:2])),
    "an opening that is not told": ("I38", with_words("open", steps=STEPS[1:])),
    "an end that is not told": ("I38", with_words("over", OPENED, steps=(STEPS[0], STEPS[1], STEPS[3]))),
    "an opening that is told twice": (
        "I38",
        with_words("open", OPENED, OPENED, steps=(*STEPS, DisputeStep("id-open", 4, "du_open", "under_review"))),
    ),
    "an end before the opening": (
        "I38",
        with_words(
            "over",
            CLOSED,
            OPENED,
            steps=(STEPS[0], replace(STEPS[1], status="lost"), replace(STEPS[2], status="needs_response"), STEPS[3]),
        ),
    ),
    "an event that is no dispute's": ("I38", with_words("other", OPENED)),
    "an event without its dispute as it was": ("I38", having(steps=STEPS[:3])),
    "an end in a status that is none": (
        "I38",
        having(steps=[replace(one, status="under_review") if one.version == 4 else one for one in STEPS]),
    ),
    "told in the timeline of another payment": (
        "I38",
        with_words("other", CLOSED, steps=(*STEPS[:3], replace(STEPS[3], payment_id="id-other"))),
    ),
    "a dispute that changed the status of its payment": (
        "I6",
        with_words("over", OPENED, "dispute_closed::canceled"),
    ),
}


@pytest.mark.parametrize(("invariant", "spoil"), BROKEN.values(), ids=BROKEN)
def test_each_way_of_breaking_an_invariant_is_caught_as_that_alone(invariant: str, spoil: Spoil) -> None:
    verdict = check(spoil(good()))
    found = {violation.invariant for violation in verdict.violations if violation.invariant in ("I6", "I37", "I38")}
    assert found == {invariant}, verdict.violations


def test_disputes_hold_in_whatever_state_they_are() -> None:
    verdict = check(good())
    assert verdict.violations == []
    judged = {finding.invariant.name: finding.judged for finding in verdict.findings}
    assert (judged["I37"], judged["I38"]) == (3, 4)
