"""Part a: Postgres' CPU for a settled payment, by batch size: today, without a subscriber, and with one for every payment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql

from bench.progress import say
from bench.report import Collector, Part
from bench.store_cost import PAYMENTS, Shape, ask
from bench.system import System
from bench.webhook.options import PARTS, WebhookBenchOptions

BATCHES = (256, 16)
_FIGURE = "settle: CPU, us a payment"
_HERE = Path(__file__).parents[2]


def none_vs_today(batch: int) -> str:
    return f"settle, none subscribe, {batch} at once, vs today"


def all_vs_today(batch: int) -> str:
    return f"settle, all subscribe, {batch} at once, vs today"


def measure(system: System, options: WebhookBenchOptions) -> Part:
    """Each mode in a process and a database of its own, by turns."""
    found = Collector("a", PARTS["a"])
    modes: dict[str, tuple[Path, bool]] = {"none subscribe": (_HERE, False), "all subscribe": (_HERE, True)}
    if options.before is not None:
        modes["today"] = (options.before.resolve(), False)
    _set(system, "ALTER SYSTEM SET full_page_writes = off")  # images of pages come with checkpoints, whenever those are
    for number in range(options.rounds):
        for batch in BATCHES:
            for mode in list(modes)[:: 1 if number % 2 else -1]:
                say(f"a: {mode}, batches of {batch}, round {number + 1} of {options.rounds}")
                version, subscribed = modes[mode]
                shape = Shape(batch=batch, payments=256 if options.quick else PAYMENTS, subscribed=subscribed)
                found.add(f"{mode}, {batch} at once", "us CPU", _round(system, version, shape)[_FIGURE])
    _set(system, "ALTER SYSTEM RESET full_page_writes")
    today = "today" if options.before is not None else "none subscribe"
    for batch in BATCHES:
        base = f"{today}, {batch} at once"
        if options.before is not None:
            found.ratio(none_vs_today(batch), of=f"none subscribe, {batch} at once", to=base)
        found.ratio(all_vs_today(batch), of=f"all subscribe, {batch} at once", to=base)
    if options.before is None:
        found.note("without --before CHECKOUT, today's figures are those without a subscriber")
    return found.part()


def _set(system: System, statement: LiteralString) -> None:
    with psycopg.connect(system.postgres.url, autocommit=True) as connection:
        connection.execute(statement)
        connection.execute("SELECT pg_reload_conf()")


def _round(system: System, version: Path, shape: Shape) -> Mapping[str, float]:
    assert system.postgres.child is not None
    name = "settling"
    with psycopg.connect(system.postgres.url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    url = system.postgres.database_url(name)
    try:
        return ask(version, url, system.postgres.child.pid, shape)
    finally:
        system.drop_database(url)
