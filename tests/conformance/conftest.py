"""The simulators, one of each for a pytest process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from okane.local.ports import free_port
from okane.local.stripe_simulator.server import stripe_simulator
from tests.conformance.simulators import running


@pytest.fixture(scope="session")
def stripe_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Stripe World."""
    port = free_port()
    with running(stripe_simulator(port=port, log=tmp_path_factory.mktemp("stripe") / "stripe.log")):
        yield f"http://127.0.0.1:{port}"
