"""The glossary names files, metrics, log lines, settings and commands that exist, in the order of the alphabet."""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest

from okane.cli import COMMANDS
from tests.docs.tables import OPERATIONS, ROOT, setting_names, table_names


class Entry(NamedTuple):
    word: str
    meaning: str
    code: list[str]
    shown: list[str]


def _entries() -> list[Entry]:
    rows = re.findall(
        r"^\| \*\*(.+?)\*\* \| (.+?) \| (.+?) \| (.+?) \|$", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE
    )
    return [
        Entry(word, meaning, re.findall(r"`([^`]+)`", code), re.findall(r"`([^`]+)`", shown))
        for word, meaning, code, shown in rows
    ]


ENTRIES = _entries()


def _exists(name: str) -> bool:
    """Return whether this is a metric, a setting, a line of the log or a command."""
    metrics = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    lines = table_names(OPERATIONS, "Lines of the log")
    if name.startswith("okane "):
        return name.split()[1] in COMMANDS
    return name in {*metrics, *lines, *setting_names()}


def test_the_glossary_has_its_words_once_and_in_order() -> None:
    words = [entry.word for entry in ENTRIES]
    assert len(words) > 30
    assert words == sorted(set(words), key=str.lower)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.word)
def test_a_word_of_the_glossary_is_found_in_the_code_and_at_run_time(entry: Entry) -> None:
    assert entry.code, "a word needs the file where it is done"
    assert entry.shown, "a word needs a metric, a line of the log, a setting or a command"
    assert [path for path in entry.code if not (ROOT / path).is_file()] == []
    assert [name for name in entry.shown if not _exists(name)] == []
