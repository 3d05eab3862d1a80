"""Every way of breaking the invariant of routes is caught, and named as that alone; what the journal says, okane reads."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from okane.providers.routing import RouteRule
from tests.faults.histories import STARTED_S, Story, story
from torture.history.journals import History
from torture.history.routes import RouteChange, Rule, to_toml
from torture.invariants.verdict import check

Spoil = Callable[[History], History]
RULES = (
    Rule(currency="EUR", amount_from=500, use=("stripe",)),
    Rule(amount_from=5_000, weights={"http": 60, "stripe": 40}),
)
CHANGES = (RouteChange(STARTED_S - 100, ()), RouteChange(STARTED_S, RULES), RouteChange(STARTED_S + 100, ()))


def led(name: str, *candidates: str, at_s: float = 50, provider: str = "stripe", **changes: Any) -> Story:
    """A payment with these candidates that was accepted then, and charged at this provider."""
    one = story(name, f"claimed::{provider}", "success").charged(provider=provider)
    row = replace(one.row, created_at_s=STARTED_S + at_s, candidates=candidates or None)
    return replace(one, row=replace(row, **changes))


STORIES = (
    led("euros", "stripe", currency="EUR"),
    led("much", "stripe", "http", amount_minor=5_000),
    led("much too", "http", "stripe", amount_minor=5_000, provider="http"),
    led("little", amount_minor=100, currency="EUR"),
    led("before", at_s=-50, currency="EUR"),
    led("not yet", at_s=5, currency="EUR"),  # the API had not taken the file
    led("still", "stripe", at_s=110, currency="EUR"),
    led("asked", currency="EUR", provider="http", requested_provider="http"),
)


def history_of(*stories: Story) -> History:
    charges = [
        replace(charge, amount_minor=one.row.amount_minor, currency=one.row.currency)
        for one in stories
        for charge in one.charges
    ]
    return History(
        rows={one.row.id: one.row for one in stories},
        events={one.row.id: one.events for one in stories},
        charges=charges,
        routes=CHANGES,
    )


BROKEN: dict[str, Story] = {
    "led by no rule": led("x", currency="EUR"),
    "led by another rule": led("x", "http", "stripe", currency="EUR", amount_minor=9_000),
    "led by a rule that it does not meet": led("x", "stripe", currency="EUR", amount_minor=499),
    "led by a rule to come": led("x", "stripe", currency="EUR", at_s=-50),
    "led by a rule that is gone": led("x", "stripe", currency="EUR", at_s=150),
    "candidates in another order": led("x", "http", "stripe", currency="EUR"),
    "candidates beside the requested provider": led("x", "stripe", currency="EUR", requested_provider="stripe"),
    "charged by one that is no candidate": led("x", "stripe", currency="EUR", provider="http"),
    "charged by one that was not requested": led("x", currency="EUR", requested_provider="stripe", provider="http"),
}


@pytest.mark.parametrize("one", BROKEN.values(), ids=BROKEN)
def test_each_way_of_breaking_the_invariant_is_caught_as_that_alone(one: Story) -> None:
    verdict = check(history_of(*STORIES, one))
    assert {violation.invariant for violation in verdict.violations} == {"I39"}, verdict.violations


def test_payments_that_rules_have_led_hold_although_the_rules_change() -> None:
    verdict = check(history_of(*STORIES))
    assert verdict.violations == []
    judged = {finding.invariant.name: finding.judged for finding in verdict.findings}
    assert judged["I39"] == 4


def test_okane_reads_the_rules_as_they_are_in_the_journal() -> None:
    read = [RouteRule.model_validate(rule) for rule in tomllib.loads(to_toml(RULES))["routes"]]
    assert [(rule.currency, rule.amount_from, rule.use, rule.weights) for rule in read] == [
        (["EUR"], 500, ["stripe"], None),
        (None, 5_000, None, {"http": 60, "stripe": 40}),
    ]
