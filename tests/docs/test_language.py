"""Documents and code keep to plain technical English, as CONTRIBUTING.md has it: the checks that a machine can make."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.test_links import DOCUMENTS, ROOT

PEOPLE = re.compile(r"\b(?:whoever|nobody|somebody|everybody|anybody)\b", re.IGNORECASE)
OPENING = re.compile(r"(?:What|Who|Whether|Which|Whose|How)\b")
LONGEST = 126
PAGES = [*DOCUMENTS, ROOT / "grafana" / "README.md"]
PRODUCT = ("bench", "grafana", "okane", "streams", "torture")


def _prose(document: Path) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines of a document without blocks of code."""
    in_code = False
    for number, line in enumerate(document.read_text().splitlines(), start=1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code:
            yield number, line


def _sources(*folders: str) -> list[Path]:
    return [
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".lua", ".sql", ".yml")
    ]


def _docstrings(source: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            text := ast.get_docstring(node)
        ):
            yield getattr(node, "lineno", 1), text


@pytest.mark.parametrize("document", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_speak_of_parts_and_not_of_persons(document: Path) -> None:
    """A system user named `nobody` may be quoted."""
    assert [(number, line) for number, line in _prose(document) if PEOPLE.search(re.sub(r"`[^`]*`", "", line))] == []


@pytest.mark.parametrize("document", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_of_prose_are_short(document: Path) -> None:
    """Rows of tables may be longer."""
    prose = [(number, line) for number, line in _prose(document) if not line.startswith("|")]
    assert [number for number, line in prose if len(line) > LONGEST] == []


def test_comments_and_texts_speak_of_parts_and_not_of_persons() -> None:
    """A system user named `nobody` may be quoted."""
    found = {path: PEOPLE.findall(re.sub(r"`[^`\n]*`|\"nobody\"", "", path.read_text())) for path in _sources(*PRODUCT)}
    assert {path: words for path, words in found.items() if words} == {}


def test_docstrings_open_with_an_imperative_or_a_noun() -> None:
    sources = [path for path in _sources(*PRODUCT, "tests") if path.suffix == ".py"]
    assert len(sources) > 400
    assert [(path, line) for path in sources for line, text in _docstrings(path) if OPENING.match(text)] == []
