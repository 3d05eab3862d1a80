"""`okane archive`: old table partitions become Parquet files."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from okane.cli.context import open_context
from okane.cli.options import Data, Json, positive_duration, whole_days
from okane.cli.output import CONSOLE, iso, print_json
from okane.cli.running import run
from okane.config import Settings
from okane.errors import SetupError
from okane.store import schema, table_partitions

app = typer.Typer(add_completion=False)

WEBHOOK_GRACE = timedelta(days=7)  # for which events are kept longer while an endpoint needs them


@app.command()
def archive(
    *,
    data: Data = None,
    older: Annotated[str, typer.Option(help="archive the table partitions that ended so long ago: 90d")],
    to: Annotated[Path, typer.Option(help="the folder of the files; the same for every run")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say only what would be archived, and what is in the way")
    ] = False,
    wait: Annotated[str, typer.Option(help="for a migration to end, then give up: 30s, 5m")] = "5m",
    json_: Json = False,
) -> None:
    from okane.archive.archive import archive as archive_parts

    context = open_context(data)
    age = whole_days(older, "--older")
    _check_age(age, context.settings)
    if not to.is_dir():
        raise SetupError(f"{to} is not a folder: make it first")
    url = context.database_url
    report = partial(typer.echo, err=True)
    if run(schema.read_version(url)) != schema.VERSION:
        raise SetupError(f"the database has another schema version than {schema.VERSION}: okane migrate")
    now = run(table_partitions.read_partitioning(url)).now
    work = partial(archive_parts, folder=to, before=now - age, dry_run=dry_run, report=report)
    done = run(table_partitions.run_locked(url, work, wait=positive_duration(wait), report=report))
    if json_:
        print_json({"archived": [_document(one) for one in done.manifests], "refused": done.refused})
    else:
        for one in done.manifests:
            CONSOLE.print(f"{one.part.suffix}: {one.tables['payments'].rows:,} payments, in {to}", soft_wrap=True)
        if done.refused is not None:
            CONSOLE.print(done.refused, soft_wrap=True)
        elif not done.manifests and not dry_run:
            CONSOLE.print("no table partition is old enough")
    if done.refused is not None:
        raise typer.Exit(1)


def _check_age(age: timedelta, settings: Settings) -> None:
    """Refuse an age at which keys are valid, or events may still be sent. Raises BadParameter."""
    if age < settings.keys_kept:
        raise typer.BadParameter(f"must not be below OKANE_KEYS_KEPT ({settings.keys_kept})", param_hint="--older")
    if age <= settings.webhook_keep + WEBHOOK_GRACE:
        raise typer.BadParameter(
            f"must be above OKANE_WEBHOOK_KEEP ({settings.webhook_keep}) and 7 days", param_hint="--older"
        )


def _document(manifest: Any) -> Mapping[str, Any]:
    return {
        "name": manifest.part.suffix,
        "from": None if manifest.part.begin is None else iso(manifest.part.begin),
        "to": iso(manifest.part.end),
        "tables": {
            name: {"file": one.file, "rows": one.rows, "sha256": one.sha256} for name, one in manifest.tables.items()
        },
    }
