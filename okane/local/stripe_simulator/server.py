"""Stripe World as a supervised program: its packages, its command, its address."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from okane.local.simulator_environment import SimulatorPackages
from okane.local.simulator_server import SimulatorServer

_HERE = Path(__file__).parent
PACKAGES = SimulatorPackages(
    name="stripe-world",
    versions=("3.14", "3.13"),
    requirements=_HERE / "requirements.txt",
    edit=_HERE / "edit_sources.py",
)


def stripe_simulator(
    *,
    port: int,
    log: Path,
    data: Path | None = None,
    webhook_url: str | None = None,
    webhook_secret: Path | None = None,
    report: Callable[[str], None] = lambda _line: None,
) -> SimulatorServer:
    """Return the simulator: Stripe's API at `http://127.0.0.1:PORT`, an account that is kept in `data`, if that is given.

    It sends signed webhooks to `webhook_url`; the file `webhook_secret` holds their secret.
    """
    arguments: list[str | Path] = [_HERE / "world_server.py", "--port", str(port)]
    if data is not None:
        arguments += ["--data", data]
    if webhook_url is not None and webhook_secret is not None:
        arguments += ["--webhook-url", webhook_url, "--webhook-secret", webhook_secret]
    return SimulatorServer(
        name="stripe", packages=PACKAGES, arguments=arguments, port=port, log=log, health="/health", report=report
    )
