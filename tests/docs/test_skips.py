"""The rule about skipped tests: in CI a skipped test fails, unless it has the mark may_skip."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.container_engine import PROGRAMS

ROOT = Path(__file__).parents[2]
CASES = """
import pytest

@pytest.mark.skipif(True, reason="no such program")
def test_needs_a_program():
    pass

def test_finds_out_later():
    pytest.skip("no such network")

@pytest.mark.may_skip
@pytest.mark.skipif(True, reason="for another user")
def test_for_another_user():
    pass

@pytest.mark.xfail(reason="known", strict=True)
def test_known_to_fail():
    assert False
"""


@pytest.mark.parametrize("ci", ["true", ""])
def test_a_skipped_test_fails_in_ci_and_is_named_with_its_reason(tmp_path: Path, ci: str) -> None:
    (tmp_path / "test_cases.py").write_text(CASES)
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_runtest_makereport\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    command += ["--no-fold-skipped", "--rootdir", str(tmp_path), str(tmp_path)]
    env = {**os.environ, "CI": ci, "COLUMNS": "200", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    failed = dict(re.findall(r"test_cases\.py::(\w+) must not be skipped in CI\. Skipped: (.*)", done.stdout))
    refused = {"test_needs_a_program": "no such program", "test_finds_out_later": "no such network"}
    assert failed == (refused if ci else {})
    assert re.search(r"SKIPPED .*test_for_another_user.* for another user", done.stdout), done.stdout
    last = done.stdout.splitlines()[-1]
    assert ("1 failed, 1 skipped, 1 xfailed, 1 error" if ci else "3 skipped, 1 xfailed") in last, done.stdout


def test_what_ci_needs_it_installs() -> None:
    """CI installs the packages of the programs that tests need."""
    script = (ROOT / ".ci" / "run").read_text()
    assert "export CI=true" in script
    programs = ("prometheus", "systemd", "nginx-light", "pgbouncer", "python3-venv", "python3.13-venv", "chromium")
    for package in (*programs, *PROGRAMS):
        assert f"install {package}" in script


def test_the_test_files_that_the_ci_script_names_exist() -> None:
    """A missing one would end the run with no tests at all."""
    names = re.findall(r"tests/[\w/]+\.py", (ROOT / ".ci" / "run").read_text())
    assert len(names) > 5
    assert [name for name in names if not (ROOT / name).exists()] == []
