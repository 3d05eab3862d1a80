"""Every relative link of the documents leads to a file and a heading that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "deploy" / "README.md"]


def _links(document: Path) -> Iterator[tuple[Path, str]]:
    """Yield the files that a document links to, each with its heading, if the link has one."""
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target:
            path, _, heading = target.partition("#")
            yield (document.parent / path if path else document), heading


def _anchors(document: Path) -> set[str]:
    """Return the anchors that the usual viewers make of the headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_exist(document: Path) -> None:
    for path, heading in _links(document):
        assert path.exists(), f"{path} does not exist"
        assert not heading or heading in _anchors(path), f"{path} has no heading #{heading}"


def test_there_are_links_to_look_at() -> None:
    assert sum(1 for document in DOCUMENTS for _ in _links(document)) > 10
