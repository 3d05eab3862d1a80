"""`okane openapi`."""

from __future__ import annotations

import json

import typer

app = typer.Typer(add_completion=False)


@app.command()
def openapi() -> None:
    from okane.api.contract.openapi import build_document
    from okane.api.routes import ROUTES

    typer.echo(json.dumps(build_document(ROUTES), indent=2))
