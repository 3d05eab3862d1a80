"""The index of docs/decisions and the pages themselves say the same: number, title, status and date."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

DECISIONS = Path(__file__).parents[2] / "docs" / "decisions"
PAGES = sorted(DECISIONS.glob("[0-9]*.md"))
STATUS = re.compile(r"Status: (accepted|superseded by (\d{3})), (\d{4}-\d\d-\d\d)(?:; amended (\d{4}-\d\d-\d\d): .+)?")


class Row(NamedTuple):
    number: str
    file: str
    title: str
    status: str
    date: str


def _index() -> list[Row]:
    """Return the rows of the table in the index, in order."""
    row = re.compile(r"^\| \[(\d{3})\]\(([^)]+)\) \| (.+?) \| (.+?) \| (\S+) \|$", re.MULTILINE)
    return [Row(*cells) for cells in row.findall((DECISIONS / "README.md").read_text())]


def _page(path: Path) -> Row:
    """Return the row that the index must have for this page."""
    title, blank, status = path.read_text().splitlines()[:3]
    number, _, words = title.removeprefix("# ").partition(" ")
    found = STATUS.fullmatch(status)
    assert found, f"{path.name}: the third line must be 'Status: …, YYYY-MM-DD', not {status!r}"
    assert not blank
    state, _, date, amended = found.groups()
    return Row(number, path.name, words, state + (f"; amended {amended}" if amended else ""), date)


def test_decisions_are_numbered_without_gaps_or_doubles() -> None:
    assert [int(path.name[:3]) for path in PAGES] == list(range(1, len(PAGES) + 1))


def test_the_index_lists_every_decision_with_its_status_and_date() -> None:
    assert _index() == [_page(path) for path in PAGES]
    assert all(row.file.startswith(row.number) for row in _index())


def test_a_superseded_decision_names_a_later_one_that_exists() -> None:
    numbers = {path.name[:3] for path in PAGES}
    for row in _index():
        if replaced := re.match(r"superseded by (\d{3})", row.status):
            assert row.number < replaced[1] <= max(numbers), row
