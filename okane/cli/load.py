"""`okane load`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import typer

from okane.cli.context import open_context
from okane.cli.errors import fail
from okane.cli.options import options_from
from okane.cli.running import run
from okane.load.options import LoadOptions

app = typer.Typer(add_completion=False)


def _addresses(given: Mapping[str, Any]) -> Mapping[str, Any]:
    context = open_context(given["data"])
    method = context.payment_method
    return {
        "url": context.api_url,
        "provider_url": context.provider_url,
        "key": context.api_key,
        "payment_methods": None if method is None else {method: 1},
    }


@app.command()
@options_from(LoadOptions, _addresses)
def load(options: LoadOptions) -> None:
    from rich.console import Console

    from okane.load import ApiUnreachableError, run_load

    try:
        report = run(run_load(options, Console(highlight=False)))
    except ApiUnreachableError as error:
        fail(str(error))
    sys.exit(report.exit_code)
