"""A Python of another version: which one is taken, and which one is not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from okane.local.other_python import find_python

OWN = "{}.{}".format(*sys.version_info[:2])


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing on the PATH, and no pyenv."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))


def python_that_says(path: Path, version: str, *, code: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {version}\nexit {code}\n")
    path.chmod(0o755)
    return path


def test_the_python_of_this_process_is_taken_if_its_version_fits() -> None:
    assert find_python([OWN]) == Path(sys.executable)


def test_none_is_found_on_a_machine_without_one() -> None:
    assert find_python(["3.99"]) is None


def test_the_path_comes_before_pyenv_and_the_first_version_before_the_second(tmp_path: Path) -> None:
    in_pyenv = python_that_says(tmp_path / "pyenv/versions/3.98.1/bin/python3", "3.98")
    assert find_python(["3.98"]) == in_pyenv
    on_path = python_that_says(tmp_path / "bin/python3.98", "3.98")
    assert find_python(["3.98"]) == on_path
    assert find_python(["3.99", "3.98"]) == on_path
    newer = python_that_says(tmp_path / "bin/python3.99", "3.99")
    assert find_python(["3.99", "3.98"]) == newer


def test_the_newest_of_pyenvs_versions_is_taken(tmp_path: Path) -> None:
    for micro in ("2", "10", "9"):
        python_that_says(tmp_path / f"pyenv/versions/3.98.{micro}/bin/python3", "3.98")
    assert find_python(["3.98"]) == tmp_path / "pyenv/versions/3.98.10/bin/python3"


def test_a_shim_of_an_inactive_version_is_passed_over(tmp_path: Path) -> None:
    python_that_says(tmp_path / "bin/python3.98", "pyenv: python3.98: command not found", code=127)
    assert find_python(["3.98"]) is None
    in_pyenv = python_that_says(tmp_path / "pyenv/versions/3.98.1/bin/python3", "3.98")
    assert find_python(["3.98"]) == in_pyenv


def test_one_that_uv_knows_is_the_last_resort(tmp_path: Path) -> None:
    elsewhere = python_that_says(tmp_path / "elsewhere/python", "3.98")
    python_that_says(tmp_path / "bin/uv", str(elsewhere))
    assert find_python(["3.98"]) == elsewhere
