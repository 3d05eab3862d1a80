"""The virtual environment of a simulator: made once, made again after an interruption or a change, with clear errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from okane.local.server import LocalError
from okane.local.simulator_environment import NoPythonError, SimulatorPackages
from okane.local.stripe_simulator.edit_sources import edited

# It writes down its steps; an environment of its own is a copy of itself. A real one takes ten seconds.
PYTHON = """#!/bin/sh
steps=$(dirname "$0")/../steps
case "$*" in
  *"-m venv "*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" && echo venv >> "$steps" ;;
  *"-m pip install"*) echo "ERROR: no hashes" >&2; ! grep -q unpinned "$(echo "$*" | sed "s/.* -r //")" ;;
  *edit.py) echo edit >> "$steps" ;;
  *) echo 3.98 ;;
esac
"""


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatorPackages:
    """Those of a simulator that needs none, on a machine that has the Python for it."""
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python3.98"
    python.write_text(PYTHON)
    python.chmod(0o755)
    monkeypatch.setenv("PATH", f"{python.parent}:/usr/bin:/bin")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# nothing\n")
    edit = tmp_path / "edit.py"
    edit.touch()
    return SimulatorPackages(name="example", versions=("3.98",), requirements=requirements, edit=edit)


def test_an_environment_is_made_once_and_edited_once(packages: SimulatorPackages, tmp_path: Path) -> None:
    lines: list[str] = []
    python = packages.prepare(lines.append, cache=tmp_path / "cache")
    assert python.is_relative_to(tmp_path / "cache")
    assert packages.prepare(lines.append, cache=tmp_path / "cache") == python
    assert len(lines) == 1
    assert "setting up example (once): 0 packages for Python 3.98" in lines[0]
    assert (tmp_path / "steps").read_text() == "venv\n"
    assert (python.parents[1] / "steps").read_text() == "edit\n"


def test_an_interrupted_set_up_begins_again(packages: SimulatorPackages, tmp_path: Path) -> None:
    python = packages.prepare(cache=tmp_path / "cache")
    (python.parents[1] / "okane-complete").unlink()
    (python.parents[1] / "rubbish").touch()
    assert packages.prepare(cache=tmp_path / "cache") == python
    assert not (python.parents[1] / "rubbish").exists()


def test_an_environment_whose_python_is_gone_is_made_again(packages: SimulatorPackages, tmp_path: Path) -> None:
    python = packages.prepare(cache=tmp_path / "cache")
    python.unlink()
    assert packages.prepare(cache=tmp_path / "cache") == python
    assert python.exists()


def test_other_requirements_get_another_environment(packages: SimulatorPackages, tmp_path: Path) -> None:
    before = packages.prepare(cache=tmp_path / "cache")
    packages.requirements.write_text("# still nothing\n")
    assert packages.prepare(cache=tmp_path / "cache") != before


def test_an_edit_that_reads_another_file_gets_another_environment(packages: SimulatorPackages, tmp_path: Path) -> None:
    file = tmp_path / "package-lock.json"
    file.write_text("{}")
    packages = replace(packages, edit_files=(file,))
    before = packages.prepare(cache=tmp_path / "cache")
    file.write_text('{"lockfileVersion": 3}')
    assert packages.prepare(cache=tmp_path / "cache") != before


def test_a_missing_python_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.touch()
    packages = SimulatorPackages(name="example", versions=("3.99", "3.98"), requirements=file)
    with pytest.raises(NoPythonError, match=r"example needs Python 3\.99 or 3\.98.*uv python install 3\.99"):
        packages.prepare(cache=tmp_path / "cache")


def test_a_failing_installation_shows_the_end_of_its_output(packages: SimulatorPackages, tmp_path: Path) -> None:
    packages.requirements.write_text("unpinned\n")
    with pytest.raises(LocalError, match=r"(?s)pip install .*failed:.*no hashes"):
        packages.prepare(cache=tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_named(packages: SimulatorPackages, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocalError, match=r"cannot write the cache folder .*file.*XDG_CACHE_HOME"):
        packages.prepare(cache=tmp_path / "file" / "cache")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x = 1\n", "from __future__ import annotations\nx = 1\n"),
        ('"""A module."""\nx = 1\n', '"""A module."""\nfrom __future__ import annotations\nx = 1\n'),
        ("", "from __future__ import annotations\n"),
        (
            "try:\n    x\nexcept A, b.C:\n    y\nexcept (D, E):\n    z\n",
            "from __future__ import annotations\ntry:\n    x\nexcept (A, b.C):\n    y\nexcept (D, E):\n    z\n",
        ),
    ],
)
def test_the_two_edits_of_the_stripe_simulator(before: str, after: str) -> None:
    assert edited(before) == after
    assert edited(after) == after
