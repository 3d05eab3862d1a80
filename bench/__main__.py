"""`okane bench`, or `python -m bench`."""

from __future__ import annotations

import json
from collections.abc import Sequence

import typer

from bench.options import BenchOptions
from bench.rendering import render
from bench.run import run
from okane.cli.errors import RedactingCommand
from okane.cli.options import options_from

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(cls=RedactingCommand)
@options_from(BenchOptions)
def bench(options: BenchOptions) -> None:
    """Measure okane on this machine: against a textbook implementation, bare loops and other libraries. Loopback only."""
    report = run(options.made_quick() if options.quick else options)
    typer.echo(json.dumps(report.to_json()) if options.json else render(report))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run with these arguments, or with the process's own."""
    app(args=arguments, prog_name="okane bench")


if __name__ == "__main__":
    main()
