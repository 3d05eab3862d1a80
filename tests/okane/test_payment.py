"""The table of transitions, and the statements that repeat it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from okane import operation
from okane.payment import AWAITING_PROVIDER, RARE_STATUSES, TERMINAL, TRANSITIONS, Status
from okane.store import sql_files
from okane.store.schema import schema_sql


def test_every_status_stands_in_the_table() -> None:
    assert set(TRANSITIONS) == set(Status)


def test_success_is_for_ever() -> None:
    assert TRANSITIONS[Status.SUCCESS] == frozenset()


def test_terminal_statuses_change_only_by_hand_or_by_money_that_moved() -> None:
    for status in TERMINAL:
        assert TRANSITIONS[status] <= {Status.PENDING, Status.NEEDS_REVIEW}


def test_an_open_outcome_is_never_failed_without_a_claim() -> None:
    assert Status.FAILED_FINAL not in TRANSITIONS[Status.UNKNOWN]
    assert Status.FAILED_RETRYABLE not in TRANSITIONS[Status.UNKNOWN]


def test_the_schema_knows_the_same_statuses() -> None:
    check = re.search(r"CHECK \(status IN \(([^)]*)\)\)", schema_sql())
    assert check is not None
    assert set(re.findall(r"'(\w+)'", check.group(1))) == {status.value for status in Status}


def test_every_status_off_the_happy_path_is_rare() -> None:
    assert set(Status) - {Status.PENDING, Status.PROCESSING, Status.SUCCESS} == RARE_STATUSES


WORDS = ("http", "on", "off", "unavailable")  # of providers, their modes, and events

# The statuses that each statement leaves and enters, by its WHERE and its SET.
_CLAIM = (
    {Status.PENDING, Status.FAILED_RETRYABLE, Status.UNKNOWN, Status.PROCESSING, *AWAITING_PROVIDER},
    {Status.PROCESSING},
)
MOVES = {
    "claim": _CLAIM,
    "claim_and_choose": _CLAIM,
    "settle": (
        {Status.PROCESSING},
        {
            Status.SUCCESS,
            Status.FAILED_RETRYABLE,
            Status.FAILED_FINAL,
            Status.UNKNOWN,
            Status.NEEDS_REVIEW,
            Status.AUTHORIZED,
            *AWAITING_PROVIDER,
        },
    ),
    "fall_back": ({Status.PROCESSING}, {Status.FAILED_RETRYABLE}),
    "retry": ({Status.FAILED_FINAL, Status.FAILED_RETRYABLE}, {Status.PENDING}),
    "cancel": ({Status.PENDING, Status.FAILED_RETRYABLE}, {Status.CANCELED}),
    "expire": ({Status.PENDING, Status.FAILED_RETRYABLE}, {Status.CANCELED}),
    "fail_late_look_up": ({Status.FAILED_FINAL, Status.CANCELED}, {Status.NEEDS_REVIEW}),
    "resolve": ({Status.NEEDS_REVIEW}, {Status.SUCCESS, Status.FAILED_FINAL}),
    "record_late": ({Status.FAILED_FINAL, Status.CANCELED}, {Status.NEEDS_REVIEW}),
    "bury": (
        {Status.PENDING, Status.FAILED_RETRYABLE, Status.UNKNOWN, Status.PROCESSING, *AWAITING_PROVIDER},
        {Status.NEEDS_REVIEW},
    ),
}


@pytest.mark.parametrize("name", MOVES)
def test_a_statement_moves_only_as_the_table_allows(name: str) -> None:
    sources, targets = MOVES[name]
    for source in sources:
        assert targets <= TRANSITIONS[source]


@pytest.mark.parametrize(
    "name", ["claim", "claim_and_choose", "retry", "cancel", "expire", "bury", "fail_late_look_up", "resolve"]
)
def test_a_statement_names_the_statuses_it_leaves(name: str) -> None:
    where = sql_files.load_statements("payments.sql")[name].split("\n    WHERE", 1)[1].split("RETURNING", 1)[0]
    named = {Status(word) for word in re.findall(r"'([a-z_]+)'", where) if word not in WORDS}
    assert named == MOVES[name][0]


def test_every_statement_that_sets_a_status_is_in_this_list() -> None:
    setting = {
        name
        for name, text in sql_files.load_statements("payments.sql").items()
        if re.search(r"\bSET status\b|,\s+status =", text)
    }
    assert setting == set(MOVES)


def test_every_statement_that_sets_a_status_says_whether_it_is_rare() -> None:
    for name in MOVES:
        text = sql_files.load_statements("payments.sql")[name]
        assert len(re.findall(r"^ +(?:SET )?status = ", text, re.MULTILINE)) == 1, name
        assert len(re.findall(r"^ +rare_status = ", text, re.MULTILINE)) == 1, name


def test_the_state_diagram_shows_the_same_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "flow.md").read_text()
    of_payments, of_operations = [
        set(re.findall(r"^    (\w+) --> (\w+)", diagram, re.MULTILINE))
        for diagram in re.findall(r"stateDiagram-v2\n(.*?)```", text, re.DOTALL)
    ]
    assert of_payments == {
        (source.value, target.value) for source, targets in TRANSITIONS.items() for target in targets
    }
    assert of_operations == {
        (source.value, target.value) for source, targets in operation.TRANSITIONS.items() for target in targets
    }
