"""`okane bench`."""

from __future__ import annotations

import typer

from okane.cli.checkout import PASS_ON, run_program

app = typer.Typer(add_completion=False)


@app.command(context_settings=PASS_ON)
def bench(context: typer.Context) -> None:
    run_program("bench", context.args)
