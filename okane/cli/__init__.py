"""The command line. Each command reads its options, builds what it needs, and runs it; nothing is decided here.

Imports stand inside the commands: `okane status` must not pay for the web server, nor `okane --help` for anything.
"""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from okane import __version__
from okane.cli import dead, keys, proving, review, servers, shared, watching
from okane.commands.redacting import RedactingGroup

app = typer.Typer(
    name="okane",
    cls=RedactingGroup,
    help="An asynchronous payment pipeline on Postgres and Redis Streams.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for room in (servers, watching, proving):
    app.add_typer(room.app)
app.add_typer(dead.app, name="dead")
app.add_typer(review.app, name="review")
app.add_typer(keys.app, name="keys")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"okane {__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and end")
    ] = False,
) -> None:
    """Options of no command in particular."""


def main() -> NoReturn:
    """The entry point. What a user can mend is one line on stderr and exit code 2; everything else is a bug."""
    try:
        if any("\ud800" <= letter <= "\udfff" for argument in sys.argv for letter in argument):
            shared.fail("an argument is not in UTF-8")
        app(prog_name="okane")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        shared.fail(_mendable(error))
    sys.exit(0)


def _mendable(error: Exception) -> str:
    """What to tell a user about an error that is not a bug. Raises the error itself if it is one."""
    from okane.errors import OkaneError
    from streams import StreamError

    match error:
        case OkaneError() | StreamError():
            from okane.logs import redacted

            return str(redacted(str(error)))
        case _:
            raise error
