"""`okane reconcile`: a day's movements against the provider's own list, difference by difference."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, replace
from datetime import date
from typing import Annotated, Any

import typer
from rich.table import Table

from okane.cli.context import Context, open_context
from okane.cli.day import Day, Progress, day_span, is_over, refuse_archived
from okane.cli.options import Data, Json
from okane.cli.output import CONSOLE, print_json
from okane.cli.running import run
from okane.cli.stores import Stores, open_stores
from okane.errors import SetupError
from okane.intake.provider_notices import NoticeIntake
from okane.providers.config import load_providers
from okane.providers.listing import Listing
from okane.providers.listings import build_listing
from okane.providers.registry import build_providers, charge_secrets
from okane.providers.secrets import CurrentSecrets
from okane.reconcile.comparison import KINDS, Difference
from okane.reconcile.day import CONCURRENT_LOOK_UPS, DayComparison, DayResult
from okane.reconcile.look_up import LookUps
from okane.reconcile.resolve import Resolution, Resolver, wait_until_settled
from okane.store import OPERATOR, ProviderEventStore
from okane.store.movements import MovementStore, Reconciliation
from okane.store.operations import OperationStore

app = typer.Typer(add_completion=False)


@app.command()
def reconcile(
    *,
    provider: Annotated[str, typer.Option(help="the provider, from `okane providers ls`")],
    data: Data = None,
    day: Day = None,
    resolve: Annotated[
        bool, typer.Option("--resolve", help="decide unknown payments and reviews by what the provider has")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="change and keep nothing, only say what would be")] = False,
    json_: Json = False,
) -> None:
    left = run(_reconcile(open_context(data), provider, day, is_resolving=resolve, dry_run=dry_run, as_json=json_))
    if left:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of a comparison and of what followed."""

    provider: str
    day: date
    is_complete: bool
    dry_run: bool
    result: DayResult
    resolutions: Collection[Resolution]
    settled: Collection[int]  # the places of the differences that have gone since

    def left(self) -> Counter[str]:
        """Return the number of differences that are left, by kind."""
        return self.result.counts - Counter(self.result.differences[place].kind for place in self.settled)

    def to_json(self) -> dict[str, Any]:
        found, left = self.result, self.left()
        return {
            "provider": self.provider,
            "day": self.day.isoformat(),
            "complete": self.is_complete,
            "listed": found.listed,
            "compared": found.compared,
            "under_way": found.under_way,
            "unanswered": found.unanswered,
            "differences_left": left.total(),
            "counts": {kind: left[kind] for kind in KINDS},
            "truncated": found.counts.total() > len(found.differences),
            "differences": [self._difference(place, one) for place, one in enumerate(found.differences)],
            "resolutions": [
                {
                    "payment_id": str(one.payment_id),
                    "operation_id": None if one.operation_id is None else str(one.operation_id),
                    "step": one.step,
                    "was": one.was,
                    "status": one.status,
                    "why": one.why,
                }
                for one in self.resolutions
            ],
            "dry_run": self.dry_run,
            "fees": dict(found.fees),
        }

    def _difference(self, place: int, one: Difference) -> dict[str, Any]:
        return {
            "kind": one.kind,
            "of": one.of,
            "payment_id": None if one.payment_id is None else str(one.payment_id),
            "operation_id": None if one.operation_id is None else str(one.operation_id),
            "provider_ref": one.provider_ref,
            "here": one.here,
            "there": one.there,
            "resolved": place in self.settled,
        }


async def _reconcile(
    context: Context, provider: str, text: str | None, *, is_resolving: bool, dry_run: bool, as_json: bool
) -> bool:
    """Compare a day, print the result and return whether differences are left. Raises SetupError, ListingFailed,
    StoreUnavailable: the comparison is not complete, and no result is kept."""
    progress = Progress()
    async with _open(context, provider) as open_:
        now = await open_.movements.now()
        day, begin, end = day_span(text, now=now)
        refuse_archived(day, begin, archived_before=await open_.movements.archived_before())
        comparison = DayComparison(
            movements=open_.movements,
            listing=open_.listing,
            look_ups=open_.look_ups,
            find_payment=open_.stores.reviews.find,
            find_operation=open_.operations.get,
            progress=progress.show,
        )
        result = await comparison.run(begin, min(end, now))
        resolutions: Collection[Resolution] = []
        settled: Collection[int] = ()
        if is_resolving:
            resolver = Resolver(
                provider=provider,
                day=day,
                movements=open_.movements,
                look_ups=open_.look_ups,
                reviews=open_.stores.reviews,
                intake=open_.stores.intake,
                operations=open_.operations,
                notices=NoticeIntake(events=open_.events, payments=open_.stores.intake),
                replay=open_.stores.replay,
            )
            differing = [one for one in result.differences if one.kind == "status"]
            resolutions = await resolver.run(
                begin,
                end,
                payments={one.payment_id for one in differing if one.payment_id and not one.operation_id},
                operations={one.operation_id for one in differing if one.operation_id},
                dry_run=dry_run,
            )
            if not dry_run:
                progress.show("waiting for the workers to look up what was woken")
                settled = await wait_until_settled(comparison, result, resolutions)
        outcome = Outcome(
            provider=provider,
            day=day,
            is_complete=is_over(end, now=now),
            dry_run=dry_run,
            result=result,
            resolutions=resolutions,
            settled=settled,
        )
        left = outcome.left()
        if not dry_run and not result.unanswered:
            await open_.movements.keep(
                Reconciliation(
                    provider=provider,
                    day=day,
                    listed=result.listed,
                    compared=result.compared,
                    differences=left,
                    fees=result.fees,
                )
            )
    if as_json:
        print_json(outcome.to_json())
    else:
        _print(outcome)
    if result.unanswered:
        raise SetupError(
            f"{provider} did not answer the look-ups of {result.unanswered:,} movements: not all is compared"
        )
    return bool(left)


@dataclass(frozen=True, slots=True)
class _Open:
    stores: Stores
    movements: MovementStore
    operations: OperationStore
    events: ProviderEventStore
    listing: Listing
    look_ups: LookUps


@contextlib.asynccontextmanager
async def _open(context: Context, name: str) -> AsyncIterator[_Open]:
    """Open what a comparison reads and writes, for the length of the block. Raises SetupError for a provider without a
    list."""
    settings = context.settings
    if settings.provider_base_url is None:
        settings = settings.model_copy(update={"provider_base_url": context.provider_base_url})
    config = load_providers(settings)
    # This one alone: the secrets of others are no concern of the comparison, and may not be on this machine.
    alone = replace(config, providers={key: found for key, found in config.providers.items() if key == name})
    secrets = CurrentSecrets(charge_secrets(alone))
    async with contextlib.AsyncExitStack() as closing:
        listing = build_listing(config, settings, name, secrets)
        closing.push_async_callback(listing.aclose)
        providers = build_providers(alone, settings, connections=CONCURRENT_LOOK_UPS, secrets=secrets)
        for one in providers.values():
            closing.push_async_callback(one.aclose)
        movements = MovementStore(context.database_url)
        closing.push_async_callback(movements.aclose)
        events = ProviderEventStore(context.database_url, grace=settings.sweep_grace)
        closing.push_async_callback(events.aclose)
        operations = OperationStore(
            context.database_url,
            actor=OPERATOR,
            lease=settings.lease,
            grace=settings.sweep_grace,
            late_look_ups=settings.late_look_ups,
        )
        closing.push_async_callback(operations.aclose)
        stores = await closing.enter_async_context(open_stores(context))
        yield _Open(stores, movements, operations, events, listing, LookUps(providers[name]))


def _print(outcome: Outcome) -> None:
    found, left = outcome.result, outcome.left()
    if found.differences:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("difference", "of", "payment", "at the provider", "here", "there"):
            table.add_column(column, no_wrap=column not in ("here", "there"))
        for one in found.differences:
            place = str(one.payment_id or one.operation_id or "")
            table.add_row(one.kind, one.of, place, one.provider_ref or "", one.here, one.there)
        CONSOLE.print(table, soft_wrap=not CONSOLE.is_terminal)
        if (more := found.counts.total() - len(found.differences)) > 0:
            CONSOLE.print(f"and {more:,} more")
    would = "would be " if outcome.dry_run else ""
    for step in outcome.resolutions:
        CONSOLE.print(f"{step.subject} {step.was}: {would}{step.step}: {step.why}", soft_wrap=True)
    so_far = "" if outcome.is_complete else " so far"
    CONSOLE.print(
        f"{outcome.day}, {outcome.provider}{so_far}: {found.listed:,} records there, {found.compared:,} movements here, "
        f"{left.total():,} differences left" + (f", {found.under_way:,} under way" if found.under_way else ""),
        soft_wrap=True,
    )
