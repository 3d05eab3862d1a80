"""A simulator that cannot run: its tests skip by name, which fails in CI (`tests/docs/test_skips.py`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from okane.local.server import LocalError
from okane.local.simulator_environment import SimulatorPackages
from okane.local.stripe_simulator.server import PACKAGES, stripe_simulator
from tests.conformance.payu_simulator import PACKAGES as PAYU
from tests.conformance.simulators import installed, running


@pytest.fixture
def no_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that has neither the Python nor the packages yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("okane.local.simulator_environment.find_python", lambda _versions: None)


@pytest.mark.usefixtures("no_python")
@pytest.mark.parametrize(
    ("packages", "needs"), [(PACKAGES, "stripe-world needs Python 3.14"), (PAYU, "payu-simulator needs")]
)
def test_a_machine_without_the_python_skips_by_name(packages: SimulatorPackages, needs: str) -> None:
    with pytest.raises(pytest.skip.Exception, match=needs):
        installed(packages)


@pytest.mark.usefixtures("no_python")
def test_a_simulator_without_its_python_skips_by_name(tmp_path: Path) -> None:
    simulator = stripe_simulator(port=1, log=tmp_path / "stripe.log")
    with pytest.raises(pytest.skip.Exception, match=r"stripe-world needs Python 3\.14 or 3\.13"), running(simulator):
        pytest.fail("it has started")


def test_an_installation_that_fails_is_no_reason_to_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise LocalError("pip install failed")

    monkeypatch.setattr(SimulatorPackages, "prepare", fails)
    with pytest.raises(LocalError):
        installed(PACKAGES)
