"""`okane torture`, or `python -m torture`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

import typer
from rich.console import Console

from okane import logs
from okane.cli.errors import RedactingCommand
from okane.cli.options import options_from
from torture.faults.listing import listed
from torture.options import TortureOptions
from torture.run import run_torture

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(cls=RedactingCommand)
@options_from(TortureOptions)
def torture(options: TortureOptions) -> None:
    """Start a system on this machine, kill, stop, disconnect and starve its parts under load, then check every invariant
    over the journals of clients, provider, Postgres and metrics. Exit code 1 if one is violated."""
    console = Console(highlight=False)
    if options.list_faults:
        console.out(listed(as_json=options.json))
        return
    # Lost and restored connections are in the report.
    logs.configure(level="error", format_="console", process="torture")
    # Not on uvloop: the proxy cannot reset connections that it has closed.
    sys.exit(asyncio.run(run_torture(options, console)).exit_code)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run with these arguments, or with the process's own."""
    app(args=arguments, prog_name="okane torture")


if __name__ == "__main__":
    main()
