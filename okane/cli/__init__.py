"""The command line: `COMMANDS` lists the commands, and `okane/cli/NAME.py` holds the one called NAME.

The module of a command is imported when the command is used, so that `okane --help` and `okane --version` stay quick.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from okane import __version__
from okane.cli.errors import RedactingGroup, fail

COMMANDS: Mapping[str, str] = {
    "up": (
        "Run everything on this machine: Postgres, Redis, mock provider, API and workers. Ctrl-C drains and stops it."
    ),
    "api": "Serve the HTTP API: accept payments and return their states.",
    "worker": "Run a worker: claim payments, charge them at the provider, settle them. Any number can run.",
    "dispatch": "Run a dispatcher: send events to the webhook endpoints of clients. Any number can run.",
    "console": "Serve the console: web pages for operators and support, behind a log-in with an API key.",
    "provider": "Run the mock provider: an HTTP server that keeps a journal of its charges and fails as configured.",
    "migrate": "Bring the database to this version's schema. Safe to repeat, and from several machines at once.",
    "partitions": "List the table partitions of payments, or make them. Exit code 1 if none is left for tomorrow.",
    "archive": "Write old table partitions to Parquet files, compare, and drop them. Refuses one with an open payment.",
    "openapi": "Print the OpenAPI 3.1 document of the HTTP API, for client generators.",
    "status": "Show the queue and the payments: depth, pending, delayed, dead, consumers, the oldest due payment.",
    "top": "Show rates, latencies, lanes, workers, retries and dead letters, live. For machines without Grafana.",
    "doctor": "Check versions, configuration, schema, clocks and ports. Exit code 1 if something is wrong.",
    "load": "Send payments to a running API, follow each to its end, and check them against the provider's journal.",
    "torture": "Break a system under load and check every invariant. In a checkout only; `--help` lists the options.",
    "bench": "Measure okane and alternatives on this machine. In a checkout only; `--help` lists the options.",
    "dead": "List, replay and purge dead letters: payments, captures, voids and refunds that were given up.",
    "payments": "Capture the money that is held for a payment, or void it; list captures, voids and refunds.",
    "refunds": "Create, list, show, cancel, retry and decide refunds.",
    "disputes": "List and show disputes: charges that customers have their bank take back.",
    "review": "List and decide payments, captures, voids and refunds that need a review by a human.",
    "report": "Print the statement of a day (UTC): charges, captures and refunds by provider and currency.",
    "reconcile": "Compare a day with a provider's own list, and name each difference. Exit code 1 if there is one.",
    "providers": "List the payment providers; switch one on, to draining, or off.",
    "keys": "Create, list, revoke and rotate API keys.",
    "methods": "List, show and delete saved payment methods.",
    "webhooks": "Add, list, test, pause and delete webhook endpoints; redeliver events, and recover after an outage.",
    "events": "List or follow the events of an account: one for each change of a payment.",
    "listen": "Forward events, signed as webhooks, to a program on this machine. For development.",
}


class _LazyGroup(RedactingGroup):
    """The group of `COMMANDS`. It holds a stand-in for each, which the lists of commands show."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name, help=text) for name, text in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name else command, rest


def load_command(name: str) -> Any:
    """Return the command called `name`, a key of `COMMANDS`, as typer's group holds it."""
    command = typer.main.get_command(import_module(f"okane.cli.{name}").app)
    command.name, command.help = name, COMMANDS[name]
    return command


app = typer.Typer(
    name="okane",
    cls=_LazyGroup,
    help="An asynchronous payment pipeline on Postgres and Redis Streams.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(given: bool) -> None:
    if given:
        typer.echo(f"okane {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """Options of `okane` itself."""


def main() -> NoReturn:
    """Run the command line. An error that the user can correct is one line on stderr and exit code 2; any other is a bug."""
    try:
        if any("\ud800" <= letter <= "\udfff" for argument in sys.argv for letter in argument):
            fail("an argument is not in UTF-8")
        app(prog_name="okane")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        from okane.errors import OkaneError
        from streams.errors import StreamError

        if not isinstance(error, OkaneError | StreamError):
            raise
        from okane.logs import redacted

        fail(str(redacted(str(error))))
    sys.exit(0)
