"""The wheel, installed as a user installs it, away from the checkout: its console answers every page and every file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin
from uuid import uuid4

import pytest

from okane.console.assets import Assets
from okane.console.screens import SCREENS
from tests.deploy.files import ROOT

SETTINGS = {"OKANE_AUTH": "none", "OKANE_LOG_FORMAT": "json", "OKANE_CONSOLE_PORT": "0"}
EXAMPLES = {"lane": "low", "payment_id": str(uuid4()), "endpoint_id": f"we_{uuid4().hex}", "name": "http"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip has installed the wheel."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, capture_output=True, timeout=100, check=True)
    [wheel] = folder.glob("okane-*.whl")
    target = folder / "site-packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(target)]
    subprocess.run([*pip, str(wheel)], cwd=folder, capture_output=True, timeout=100, check=True)
    return target


@pytest.fixture
def console_url(installed: Path, tmp_path: Path, database_url: str, redis_url: str) -> Iterator[str]:
    """The address of an `okane console` from the wheel."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("OKANE_")}
    env = {**ours, **SETTINGS, "PYTHONPATH": str(installed), "DATABASE_URL": database_url, "REDIS_URL": redis_url}
    where = [sys.executable, "-P", "-c", "import okane.console; print(okane.console.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout.startswith(str(installed))
    command = [sys.executable, "-P", "-m", "okane", "console"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if '"console_started"' in line:
                break
        else:
            pytest.fail("".join(said))
        yield json.loads(said[-1])["url"]
        process.terminate()
        rest = process.stdout.read()
        assert process.wait(60) == 0, rest
        assert '"console_error"' not in rest, rest


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_every_page_and_every_file_is_served(console_url: str) -> None:
    for name in Assets.load().names.values():
        assert status_of(urljoin(console_url, f"static/{name}")) == 200, name
    pages = [screen.path for screen, _handler in SCREENS if screen.method == "GET"]
    assert len(pages) > 15
    for path in pages:
        shown = re.sub(r"\{(\w+)\}", lambda match: EXAMPLES[match[1]], path.removeprefix("/"))
        of_none = {"/payments/{payment_id}", "/webhooks/{endpoint_id}"}  # nothing has these ids
        assert status_of(urljoin(console_url, shown)) == (404 if path in of_none else 200), shown
