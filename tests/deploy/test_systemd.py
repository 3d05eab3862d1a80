"""The systemd units: systemd accepts them, they are hardened, and a stop leaves time to drain."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from tests.deploy.files import DEPLOY, check_settings, drain_needed

FOLDER = DEPLOY / "systemd"
UNITS = sorted(path.name for path in FOLDER.glob("*.service"))
PROGRAM = "/opt/okane/bin/okane"
EXPOSED_AT_MOST = 15  # of 100: the rest is the network, and the machine's own files, read-only

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (apt-get install systemd)"
)


def values(unit: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", (FOLDER / unit).read_text(), re.MULTILINE)


def environment(unit: str, instance: str = "1") -> dict[str, str]:
    """Return the environment in the unit itself, without the file of the operator."""
    words = " ".join(values(unit, "Environment")).replace("%i", instance).split()
    return dict(word.split("=", 1) for word in words)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Copy the units with a program that exists, and the template as its first instance."""
    for unit in UNITS:
        text = (FOLDER / unit).read_text().replace(PROGRAM, shutil.which("true") or "/bin/true")
        (tmp_path / unit.replace("@.", "@1.")).write_text(text)
    return tmp_path


def analyze(*arguments: str | Path) -> str:
    done = subprocess.run(
        ["systemd-analyze", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_documented_units_exist() -> None:
    names = ("api", "console", "dispatcher", "migrate", "worker@")
    assert [f"okane-{name}.service" for name in names] == UNITS


@needs_systemd
def test_systemd_understands_every_line(installed: Path) -> None:
    output = analyze("verify", "--man=no", *sorted(installed.iterdir()))
    assert not [line for line in output.splitlines() if str(installed) in line], output


@needs_systemd
@pytest.mark.parametrize("unit", UNITS)
def test_units_expose_little_of_the_machine(installed: Path, unit: str) -> None:
    path = installed / unit.replace("@.", "@1.")
    analyze("security", "--offline=true", "--no-pager", f"--threshold={EXPOSED_AT_MOST}", path)


@pytest.mark.parametrize("unit", UNITS)
def test_it_runs_our_program_without_a_shell(unit: str) -> None:
    [start] = values(unit, "ExecStart")
    assert start.split()[0] == PROGRAM
    assert start.split()[1] in ("api", "worker", "dispatch", "console", "migrate")
    assert values(unit, "EnvironmentFile") == ["/etc/okane/okane.env"]


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit != "okane-migrate.service"])
def test_a_stop_drains_and_a_death_is_followed_by_a_start(unit: str) -> None:
    """A second SIGTERM ends a process at once: only the first process may get one, and pass it on."""
    assert values(unit, "KillMode") == ["mixed"]
    [stop] = values(unit, "TimeoutStopSec")
    assert timedelta(seconds=int(stop)) >= drain_needed(check_settings({}))
    assert values(unit, "Restart") == ["always"]
    assert values(unit, "StartLimitIntervalSec") == ["0"]
    assert values(unit, "Requires") == []  # a dependency that failed once would keep it from ever starting


@pytest.mark.parametrize("unit", UNITS)
def test_no_watchdog_is_promised(unit: str) -> None:
    assert values(unit, "WatchdogSec") == []
    assert values(unit, "Type")[0] in ("exec", "oneshot")


def test_metrics_have_ports_of_their_own() -> None:
    api = environment("okane-api.service")
    processes = int(api.pop("API_PROCESSES"))
    first = check_settings(api).metrics_port
    taken = {first + number for number in range(processes)}
    for instance in "123456789":
        port = check_settings(environment("okane-worker@.service", instance)).metrics_port
        assert port not in taken
        taken.add(port)
    for unit in ("okane-dispatcher.service", "okane-console.service"):
        port = check_settings(environment(unit)).metrics_port
        assert port not in taken
        taken.add(port)


def test_the_example_of_the_environment_names_settings() -> None:
    lines = (FOLDER / "okane.env").read_text().splitlines()
    env = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", "\n".join(lines), re.MULTILINE))
    assert check_settings(env).redis
    assert {"DATABASE_URL", "REDIS_URL", "PROVIDER_BASE_URL"} <= set(env)
