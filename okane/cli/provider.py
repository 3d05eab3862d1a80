"""`okane provider`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from okane.cli.context import load_settings
from okane.cli.options import options_from
from okane.cli.running import log_as, run
from okane.local.data_folder import default_path
from okane.simulator.options import SimulatorOptions

app = typer.Typer(add_completion=False)


def _defaults(given: Mapping[str, Any]) -> Mapping[str, Any]:
    folder = default_path()
    if given["journal"] is None:
        folder.mkdir(mode=0o700, exist_ok=True)
    return {"port": load_settings().mock_provider_port, "journal": folder / "provider.jsonl"}


@app.command()
@options_from(SimulatorOptions, _defaults)
def provider(options: SimulatorOptions) -> None:
    from okane.app.mock_provider import run_provider

    log_as(load_settings(), "provider")
    run(run_provider(options))
