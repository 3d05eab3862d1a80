"""`okane report`: the statement of a day, with charges, captures and refunds by provider and currency."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from okane.cli.context import Context, open_context
from okane.cli.day import Day, Progress, day_span, is_over, refuse_archived
from okane.cli.options import Data, Json
from okane.cli.output import CONSOLE, iso, print_json
from okane.cli.running import run
from okane.store.movements import MovementKind, MovementStore, Reconciliation, Total
from okane.timestamp_text import format_time

app = typer.Typer(add_completion=False)

KINDS: Sequence[MovementKind] = ("charge", "capture", "refund", "refund_reversal")
# What leaves the balance counts against what comes in.
_SIGNS: Mapping[str, int] = {"charge": 1, "capture": 1, "refund": -1, "refund_reversal": 1}
COLUMNS = ("day", "provider", "kind", "currency", "count", "amount")


@app.command()
def report(
    *,
    data: Data = None,
    day: Day = None,
    provider: Annotated[str | None, typer.Option(help="only this provider")] = None,
    csv_: Annotated[bool, typer.Option("--csv", help="print CSV instead of text")] = False,
    json_: Json = False,
) -> None:
    if csv_ and json_:
        raise typer.BadParameter("goes with --csv or --json, not with both", param_hint="--json")
    run(_report(open_context(data), day, provider=provider, form="csv" if csv_ else "json" if json_ else "text"))


@dataclass(frozen=True, slots=True)
class Statement:
    """The totals of a day, and what the comparisons with the providers said. `is_complete`: the day is over."""

    day: date
    begin: datetime
    end: datetime
    is_complete: bool
    totals: Sequence[Total]
    reconciliations: Sequence[Reconciliation]

    def net(self) -> Mapping[tuple[str | None, str], int]:
        """Return what came in less what went out, by provider and currency, without fees."""
        found: Counter[tuple[str | None, str]] = Counter()
        for one in self.totals:
            found[one.provider, one.currency] += _SIGNS[one.kind] * one.amount_minor
        return found

    def to_json(self) -> dict[str, Any]:
        return {
            "day": self.day.isoformat(),
            "begin": iso(self.begin),
            "end": iso(self.end),
            "complete": self.is_complete,
            "totals": [
                {
                    "provider": one.provider,
                    "kind": one.kind,
                    "currency": one.currency,
                    "count": one.count,
                    "amount": one.amount_minor,
                }
                for one in self.totals
            ],
            "net": [
                {"provider": provider, "currency": currency, "amount": amount}
                for (provider, currency), amount in self.net().items()
            ],
            "reconciled": [
                {
                    "provider": one.provider,
                    "ran_at": None if one.ran_at is None else iso(one.ran_at),
                    "differences": sum(one.differences.values()),
                    "fees": dict(one.fees),
                }
                for one in self.reconciliations
            ],
        }


async def _report(context: Context, text: str | None, *, provider: str | None, form: str) -> None:
    """Print the statement of the day, in the given form."""
    store = MovementStore(context.database_url)
    try:
        found = await read_statement(store, text, provider=provider, progress=Progress())
    finally:
        await store.aclose()
    if not found.is_complete:
        typer.echo(f"okane: {found.day} is not over: this is the statement so far", err=True)
    if form == "json":
        print_json(found.to_json())
    elif form == "csv":
        CONSOLE.file.write(_csv(found))
    else:
        _print(found)


async def read_statement(
    store: MovementStore, text: str | None, *, provider: str | None, progress: Progress
) -> Statement:
    """Read the totals of a day, slice by slice. Raises SetupError for a day that is none, or was archived."""
    now = await store.now()
    day, begin, end = day_span(text, now=now)
    refuse_archived(day, begin, archived_before=await store.archived_before())
    counts: Counter[tuple[MovementKind, str | None, str]] = Counter()
    amounts: Counter[tuple[MovementKind, str | None, str]] = Counter()
    async for till, totals in store.totals(begin, min(end, now), provider=provider):
        for one in totals:
            key = (one.kind, one.provider, one.currency)
            counts[key] += one.count
            amounts[key] += one.amount_minor
        progress.show(f"read up to {format_time(till)}: {sum(counts.values()):,} movements")
    keys = sorted(counts, key=lambda key: (key[1] or "", key[2], KINDS.index(key[0])))
    return Statement(
        day,
        begin,
        end,
        is_over(end, now=now),
        [Total(*key, counts[key], amounts[key]) for key in keys],
        [one for one in await store.of_day(day) if provider in (None, one.provider)],
    )


def _csv(found: Statement) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for one in found.totals:
        rows.writerow((found.day, one.provider or "", one.kind, one.currency, one.count, one.amount_minor))
    for run_ in found.reconciliations:
        for currency, amount in sorted(run_.fees.items()):
            rows.writerow((found.day, run_.provider, "fee", currency, "", amount))
    return text.getvalue()


def _print(found: Statement) -> None:
    CONSOLE.print(f"{found.day}, UTC; amounts in minor units", soft_wrap=True)
    if not found.totals:
        CONSOLE.print("no money moved")
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("provider", "currency", "kind", "count", "amount"):
            table.add_column(column, no_wrap=True, justify="right" if column in ("count", "amount") else "left")
        net = found.net()
        for place, one in enumerate(found.totals):
            table.add_row(
                one.provider or "", one.currency, one.kind, f"{one.count:,}", f"{_SIGNS[one.kind] * one.amount_minor:,}"
            )
            following = found.totals[place + 1] if place + 1 < len(found.totals) else None
            if following is None or (following.provider, following.currency) != (one.provider, one.currency):
                table.add_row("", "", "net", "", f"{net[one.provider, one.currency]:,}")
        CONSOLE.print(table, soft_wrap=not CONSOLE.is_terminal)
    for one_run in found.reconciliations:
        fees = ", ".join(f"{amount:,} {currency}" for currency, amount in sorted(one_run.fees.items()))
        left = sum(one_run.differences.values())
        when = "" if one_run.ran_at is None else f" at {format_time(one_run.ran_at)}"
        CONSOLE.print(
            f"{one_run.provider}: reconciled{when}, {left:,} differences" + (f", fees {fees}" if fees else ""),
            soft_wrap=True,
        )
