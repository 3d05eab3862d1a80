"""The files that browsers get: vendored ones as published, templates that the content policy allows, and a first load that
is small."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import pytest

import okane.console

_PACKAGE = Path(okane.console.__file__).parent
STATIC, TEMPLATES = _PACKAGE / "static", sorted((_PACKAGE / "templates").rglob("*.html"))
FIRST_LOAD_BYTES = 15_000
PAGE_BYTES = 5_000  # of them, what the largest page may have; see `tests/console/browser` for the pages


def test_vendored_files_are_as_their_authors_published_them() -> None:
    lines = [line.split() for line in (STATIC / "VENDORED").read_text().splitlines() if not line.startswith("#")]
    assert {name: hashlib.sha256((STATIC / name).read_bytes()).hexdigest() for name, *_ in lines} == {
        name: sha256 for name, _package, _version, _licence, sha256 in lines
    }
    ours = {"VENDORED", "console.css", "console.js", "icon.svg"}
    assert {path.name for path in STATIC.iterdir()} == ours | {name for name, *_ in lines}


def test_the_files_of_a_first_visit_leave_room_for_the_page() -> None:
    sizes = {path.name: len(gzip.compress(path.read_bytes(), mtime=0)) for path in STATIC.iterdir() if path.suffix}
    assert sum(sizes.values()) <= FIRST_LOAD_BYTES - PAGE_BYTES, sizes


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_a_template_has_nothing_that_the_content_policy_would_block(template: Path) -> None:
    """No inline script, style or handler, no address of another host, and no text that escapes the escaping."""
    text = re.sub(r"\{#.*?#\}", "", template.read_text(), flags=re.DOTALL)
    assert re.search(r"\|\s*safe\b|\bautoescape\b", text) is None
    markup = re.sub(r"\{%.*?%\}|\{\{.*?\}\}", "", text, flags=re.DOTALL)
    for forbidden in (
        r"<style\b",
        r"\sstyle\s*=",
        r"\son[a-z]+\s*=",
        r"javascript:",
        r"<script(?![^>]*\ssrc=)",
        r"""(?:href|src|action)\s*=\s*["'](?:https?:)?//""",
    ):
        assert re.search(forbidden, markup, re.IGNORECASE) is None, f"{template.name} has {forbidden}"


def test_the_script_and_the_style_sheet_name_no_host_and_evaluate_no_text() -> None:
    for name in ("console.js", "console.css", "idiomorph.min.js"):
        found = re.search(
            r"\beval\s*\(|new Function|https?://(?!www\.w3\.org/)|@import|url\(", (STATIC / name).read_text()
        )
        assert found is None, f"{name} has {found[0]}"
