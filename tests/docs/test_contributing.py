"""CONTRIBUTING.md names files that exist, and the import layers as they are checked."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def _section(heading: str) -> str:
    """Return the text under this heading, up to the next one of any level."""
    return re.split(r"^#+ ", CONTRIBUTING.split(f"# {heading}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def test_the_map_names_files_that_exist() -> None:
    rows = re.findall(r"^\| (are|is|does|do) (.+\?) \| (.+) \|$", _section("The map"), re.MULTILINE)
    assert len(rows) > 30
    for _, question, answer in rows:
        paths = re.findall(r"`([^`]+)`", answer)
        assert paths, question
        assert [path for path in paths if not (ROOT / path).is_file()] == [], question


def test_files_and_folders_in_the_text_exist() -> None:
    text = re.sub(r"```.*?```", "", CONTRIBUTING, flags=re.DOTALL)
    paths = re.findall(r"`((?:okane|streams|tests|torture|bench|grafana|deploy|docs)/[\w./]+)`", text)
    assert len(paths) > 50
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_layers_are_those_of_the_import_rules() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract.get("containers") == ["okane"])
    assert _section("The layers").split("```")[1].split("\n")[1:-1] == layers
