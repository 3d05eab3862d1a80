"""The process of the mock provider."""

from __future__ import annotations

import structlog

from okane.app import process
from okane.errors import SetupError
from okane.simulator import app as simulator
from okane.simulator.journal import JournalError
from okane.simulator.options import SimulatorOptions

log = structlog.get_logger("okane.app")


async def run_provider(options: SimulatorOptions) -> None:
    """Serve the mock provider until SIGTERM or SIGINT."""
    stop = process.stop_on_signals()
    try:
        await simulator.run(options, stop=stop, ready=lambda url: log.info("provider_started", url=url))
    except (OSError, UnicodeError, JournalError) as error:
        raise SetupError(f"the mock provider cannot run: {error}") from error
    log.info("provider_stopped")
