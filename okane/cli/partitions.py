"""`okane partitions`: the table partitions of payments, which `okane archive` takes one by one."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer
from rich.table import Table

from okane.cli.context import open_context
from okane.cli.options import Data, Json, positive_duration, whole_days
from okane.cli.output import CONSOLE, iso, print_json
from okane.cli.running import run
from okane.errors import SetupError
from okane.monitoring.partition_checks import partition_checks
from okane.store import schema, table_partitions
from okane.store.partition_bounds import WEEK
from okane.store.table_partitions import Partitioning, PartSize
from okane.timestamp_text import format_time

app = typer.Typer(add_completion=False)


@app.command()
def partitions(
    *,
    data: Data = None,
    create: Annotated[bool, typer.Option("--create", help="make those of the next time, if they are missing")] = False,
    convert: Annotated[
        bool, typer.Option("--convert", help="make today's tables the first table partition, while they are used")
    ] = False,
    every: Annotated[
        str, typer.Option(help="the length of new table partitions (default: 7d, or that of the newest)")
    ] = "",
    undo: Annotated[
        bool, typer.Option("--undo", help="go back to one table, while all payments are in the first table partition")
    ] = False,
    wait: Annotated[str, typer.Option(help="for a migration to end, then give up: 30s, 5m")] = "5m",
    json_: Json = False,
) -> None:
    if create + convert + undo > 1:
        raise typer.BadParameter("only one of --create, --convert and --undo can be done at once")
    url = open_context(data).database_url
    report = partial(typer.echo, err=True)
    patience = positive_duration(wait)
    length = whole_days(every, "--every") if every else None
    if convert:
        _check_schema(url)
        done = run(table_partitions.convert(url, every=length or WEEK, wait=patience, report=report))
        report("converted" if done else "the tables have table partitions already")
    if undo:
        done = run(table_partitions.revert(url, wait=patience, report=report))
        report("payments are in one table again" if done else "payments are in one table")
    if create:
        made = run(table_partitions.make_parts(url, every=length, wait=patience, report=report))
        report(f"made: {', '.join(part.suffix for part in made)}" if made else "none is missing")
    found = run(table_partitions.read_partitioning(url))
    if json_:
        print_json(_document(found))
    else:
        _print(found)
    if any(check.state == "fail" for check in partition_checks(found)):
        raise typer.Exit(1)


def _check_schema(url: str) -> None:
    found = run(schema.read_version(url))
    if found != schema.VERSION:
        raise SetupError(f"the database has schema version {found}, this needs {schema.VERSION}: okane migrate")


def _print(found: Partitioning) -> None:
    if found.parts:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("table partition", "from", "to", "payments (about)", "MB"):
            table.add_column(column, no_wrap=True, justify="right" if column in ("payments (about)", "MB") else "left")
        for one in found.parts:
            table.add_row(
                one.part.suffix,
                "" if one.part.begin is None else format_time(one.part.begin),
                format_time(one.part.end),
                f"{one.payments:,}",
                f"{one.size_bytes / 1e6:,.1f}",
            )
        CONSOLE.print(table, soft_wrap=not CONSOLE.is_terminal)
    else:
        CONSOLE.print("payments are in one table: okane partitions --convert makes table partitions")
    for check in partition_checks(found):
        if check.state != "ok":
            CONSOLE.print(f"{check.found}: {check.advice}", soft_wrap=True)


def _document(found: Partitioning) -> dict[str, object]:
    checks = partition_checks(found)
    return {
        "partitions": [_part(one) for one in found.parts],
        "end": None if found.end is None else iso(found.end),
        "problems": [f"{check.found}: {check.advice}" for check in checks if check.state != "ok"],
    }


def _part(one: PartSize) -> dict[str, object]:
    return {
        "name": one.part.suffix,
        "from": None if one.part.begin is None else iso(one.part.begin),
        "to": iso(one.part.end),
        "payments": one.payments,
        "bytes": one.size_bytes,
    }
