"""The command line. Each command reads its options, builds what it needs, and runs it; nothing is decided here.

Imports stand inside the commands: `okane status` must not pay for the web server, nor `okane --help` for anything.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from okane.cli import dead, keys, proving, servers, shared, watching

app = typer.Typer(
    name="okane",
    help="An asynchronous payment pipeline on Postgres and Redis Streams.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for room in (servers, watching, proving):
    app.add_typer(room.app)
app.add_typer(dead.app, name="dead")
app.add_typer(keys.app, name="keys")


def main() -> NoReturn:
    """The entry point. What a user can mend is one line on stderr and exit code 2; everything else is a bug."""
    try:
        app(prog_name="okane")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        shared.fail(_mendable(error))
    sys.exit(0)


def _mendable(error: Exception) -> str:
    """What to tell a user about an error that is not a bug. Raises the error itself if it is one."""
    from pydantic import ValidationError

    from okane.errors import OkaneError
    from streams import StreamError

    match error:
        case ValidationError():
            said = [
                (".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, ")) for one in error.errors()
            ]
            return "\n".join(f"{name}: {message}" if name else message for name, message in said)
        case OkaneError() | StreamError():
            return str(error)
        case _:
            raise error
