"""`okane torture`."""

from __future__ import annotations

import typer

from okane.cli.checkout import PASS_ON, run_program

app = typer.Typer(add_completion=False)


@app.command(context_settings=PASS_ON)
def torture(context: typer.Context) -> None:
    run_program("torture", context.args)
