"""run.py in a copy of its own, with requirements that name no package: what it makes, keeps, repairs and refuses."""

from __future__ import annotations

import ast
import fcntl
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.local.waiting import wait_until

ROOT = Path(__file__).parents[2]
ECHO = "import sys, os; print('okane', *sys.argv[1:], sys.prefix)"


@dataclass(frozen=True)
class Clone:
    """A checkout with nothing but run.py and an okane that prints its arguments and its environment's place."""

    root: Path

    def run(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(self.root / "run.py"), *words]
        return subprocess.run(command, cwd=cwd or self.root, capture_output=True, text=True, check=False, timeout=100)

    @property
    def venv(self) -> Path:
        return self.root / ".venv"


def make_clone(root: Path) -> Clone:
    (root / "okane").mkdir(parents=True)
    shutil.copy(ROOT / "run.py", root)
    (root / "okane" / "__init__.py").touch()
    (root / "okane" / "__main__.py").write_text(ECHO)
    for name in ("requirements.txt", "requirements-dev.txt"):
        (root / name).write_text("# nothing\n")
    return Clone(root)


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """Nothing is set up there yet."""
    return make_clone(tmp_path / "clone")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a clone that was set up once: most tests share it instead of waiting for pip."""
    clone = make_clone(tmp_path_factory.mktemp("made") / "clone")
    done = clone.run("status")
    assert done.returncode == 0, done.stderr
    return clone.root


def test_alone_it_prints_its_commands_and_sets_nothing_up(clone: Clone) -> None:
    done = clone.run()
    assert done.returncode == 0
    assert "python3 run.py up" in done.stdout
    assert not clone.venv.exists()


@pytest.mark.parametrize("path", [None, "."])
def test_any_other_word_goes_to_okane_in_its_environment_from_anywhere(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    (tmp_path / "okane").mkdir()  # a user's folder of that name in the current folder
    (tmp_path / "okane" / "__init__.py").touch()
    (tmp_path / "okane" / "__main__.py").write_text("raise SystemExit('the wrong okane')")
    if path is not None:
        monkeypatch.setenv("PYTHONPATH", path)
    Clone(made).run("status")  # set up, whatever other tests did to it
    done = Clone(made).run("worker", "--name", "w 1", cwd=tmp_path)
    assert done.stdout == f"okane worker --name w 1 {made / '.venv'}\n", done.stderr
    assert done.stderr == "", "it is set up: there is nothing to say"


def test_a_set_up_that_was_cut_short_is_made_again(made: Path) -> None:
    stamp = made / ".venv" / "okane-setup.json"
    stamp.unlink()
    done = Clone(made).run("status")
    assert "the set-up was not finished, making it again" in done.stderr
    assert stamp.exists()
    assert done.stdout.startswith("okane status")


def test_changed_requirements_are_installed_into_the_same_environment(made: Path) -> None:
    kept = made / ".venv" / "kept"
    kept.touch()
    (made / "requirements.txt").write_text("# still nothing\n")
    done = Clone(made).run("status")
    assert ".venv: installing 0 packages from requirements.txt" in done.stderr
    assert kept.exists()


def test_an_environment_of_another_python_is_made_again(made: Path) -> None:
    stamp = made / ".venv" / "okane-setup.json"
    stamp.write_text(json.dumps({**json.loads(stamp.read_text()), "version": "3.99"}))
    assert "it was made for Python 3.99, making it again for" in Clone(made).run("status").stderr


def test_an_environment_that_was_moved_is_made_again(made: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(made, moved, symlinks=True)
    done = Clone(moved).run("status")
    assert f"it was made in {made / '.venv'}, making it again here" in done.stderr
    assert done.stdout.endswith(f"{moved / '.venv'}\n")


def test_a_venv_that_is_somebody_elses_is_not_touched(clone: Clone) -> None:
    clone.venv.mkdir()
    (clone.venv / "theirs").touch()
    done = clone.run("status")
    assert done.returncode == 1
    assert "was not made by run.py" in done.stderr
    assert (clone.venv / "theirs").exists()


def test_a_package_that_no_hash_vouches_for_is_refused_with_pips_own_words(made: Path) -> None:
    package = made / "package"  # a folder: pip needs no package index to refuse it
    package.mkdir()
    (package / "pyproject.toml").write_text('[project]\nname = "package"\nversion = "1"\n')
    (made / "requirements.txt").write_text(f"{package}\n")
    done = Clone(made).run("status")
    (made / "requirements.txt").write_text("# nothing\n")
    assert done.returncode == 1
    assert "Can't verify hashes" in done.stderr


def test_a_second_set_up_waits_for_the_first(made: Path) -> None:
    (made / ".venv" / "okane-setup.json").unlink(missing_ok=True)
    lock = os.open(made, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    command = [sys.executable, str(made / "run.py"), "status"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as second:
        assert second.stderr is not None
        assert "another run.py is setting it up, waiting" in second.stderr.readline()
        os.close(lock)
        out, _ = second.communicate(timeout=100)
    assert out.startswith("okane status")


def test_ctrl_c_during_the_set_up_says_that_it_begins_again(clone: Clone) -> None:
    command = [sys.executable, str(clone.root / "run.py"), "status"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until((clone.venv / "made-by-run.py").exists)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "Interrupted. The next run begins the set-up again." in err


@pytest.mark.parametrize("version", [(3, 6, 15), (3, 10, 13)])
def test_an_old_python_is_told_which_one_is_needed(version: tuple[int, int, int]) -> None:
    code = f"import sys, runpy; sys.version_info = {version}; sys.argv = ['run.py', 'up']; runpy.run_path('run.py')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"okane needs Python 3.11 or newer, this is {'.'.join(map(str, version))}" in done.stderr


def test_its_syntax_is_one_that_an_old_python_can_read() -> None:
    """Otherwise the message above would never be seen."""
    ast.parse((ROOT / "run.py").read_text(), feature_version=(3, 6))


@pytest.mark.may_skip
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_checkout_that_cannot_be_written_is_a_clear_error(clone: Clone) -> None:
    clone.root.chmod(0o555)
    done = clone.run("status")
    clone.root.chmod(0o755)
    assert "okane cannot write its virtual environment" in done.stderr


def test_the_tests_keep_compiled_modules_in_the_environment_where_none_may_be_beside_the_sources(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", "elsewhere")  # so that it is restored after this test
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    runpy.run_path(str(ROOT / "run.py"))["keep_bytecode"]()
    assert "PYTHONDONTWRITEBYTECODE" not in os.environ
    assert os.environ["PYTHONPYCACHEPREFIX"] == str(ROOT / ".venv" / "bytecode")


@pytest.mark.parametrize(
    ("words", "many"),
    [
        ([], True),
        (["tests/okane", "-k", "retry"], True),
        (["-n", "2"], False),
        (["-n0"], False),
        (["--pdb"], False),
        (["tests/a.py::test_b"], False),
    ],
)
def test_the_tests_run_in_parallel_unless_that_makes_no_sense(words: list[str], many: bool) -> None:
    parallel: Callable[[list[str]], list[str]] = runpy.run_path(str(ROOT / "run.py"))["parallel"]
    assert bool(parallel(words)) is many


def test_check_stops_at_the_first_check_that_fails(clone: Clone) -> None:
    assert clone.run("test", "--version").returncode != 0  # set up, without pytest
    programs = clone.venv / "bin"
    for name, code in (("ruff", 0), ("mypy", 3), ("lint-imports", 0)):
        (programs / name).write_text(f"#!/bin/sh\necho ran {name} $*\nexit {code}\n")
        (programs / name).chmod(0o755)
    done = clone.run("check")
    assert done.returncode == 3
    assert [line for line in done.stdout.splitlines() if line.startswith("ran")] == [
        "ran ruff check .",
        "ran ruff format --check .",
        "ran mypy",
    ]
