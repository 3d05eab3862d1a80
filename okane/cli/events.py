"""`okane events`: the log of events of the account whose API key is used, oldest first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import typer

from okane.cli.api_client import Key, Url, event_id, open_client, parse_moment, split_types
from okane.cli.context import Context, open_context
from okane.cli.options import Data, Json
from okane.cli.output import CONSOLE, print_json
from okane.cli.running import run
from okane.cli.stores import payment_id as parsed_payment_id
from okane.cli.webhook_output import event_line
from okane.client import Client, EventPage, WebhookEvent

WAIT_S = 25

app = typer.Typer(add_completion=False)


@app.command()
def events(
    *,
    data: Data = None,
    event: Annotated[str | None, typer.Argument(metavar="EVENT", help="show this one event, with its body")] = None,
    since: Annotated[str | None, typer.Option(help="events from: 2h ago, or 2027-01-31T12:00:00Z")] = None,
    after: Annotated[str | None, typer.Option(help="the next page: the place from the end of this one")] = None,
    types: Annotated[str | None, typer.Option(help="only these types, separated by commas")] = None,
    payment: Annotated[str | None, typer.Option(help="only events of this payment")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="events of a page")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="wait for more until Ctrl-C")] = False,
    url: Url = None,
    key: Key = None,
    json_: Json = False,
) -> None:
    """List events, oldest first. With --follow and neither --since nor --after, only those from now on."""
    if since is not None and after is not None:
        raise typer.BadParameter("give --since or --after, not both")
    if event is not None:
        chosen = event_id(event)
        run(_show(open_context(data), chosen, url=url, key=key))
        return
    began = None if since is None else parse_moment(since, "--since")
    if follow and since is None and after is None:
        began = datetime.now(UTC)
    wanted = Wanted(
        after=after,
        since=began,
        types=None if types is None else split_types(types),
        payment_id=None if payment is None else parsed_payment_id(payment, listed_by="okane events"),
        limit=limit,
    )
    run(_list(open_context(data), wanted, follow=follow, url=url, key=key, as_json=json_))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The events to list: those behind a place, or from a time on."""

    after: str | None
    since: datetime | None
    types: Sequence[str] | None
    payment_id: UUID | None
    limit: int


async def _show(context: Context, event: str, *, url: str | None, key: str | None) -> None:
    """Print one event as it is sent."""
    async with open_client(context, url, key) as client:
        print_json((await client.webhooks.event(event)).document)


async def _list(
    context: Context, wanted: Wanted, *, follow: bool, url: str | None, key: str | None, as_json: bool
) -> None:
    """Print a page; with `follow` every page to come, across restarts of the API."""
    async with open_client(context, url, key, patience_s=math.inf if follow else None) as client:
        page = await _page(client, wanted, wait_s=0)
        while page.has_more and not page.events:  # the API reads a bounded part of the log at a time
            wanted = replace(wanted, after=page.after, since=None)
            page = await _page(client, wanted, wait_s=0)
        if not follow:
            _print_page(page, as_json=as_json)
            return
        while True:
            for event in page.events:
                _print_event(event, as_json=as_json)
            wanted = replace(wanted, after=page.after, since=None, limit=100)
            page = await _page(client, wanted, wait_s=WAIT_S)


async def _page(client: Client, wanted: Wanted, *, wait_s: int) -> EventPage:
    return await client.webhooks.page(
        after=wanted.after,
        since=wanted.since,
        types=wanted.types,
        payment_id=wanted.payment_id,
        limit=wanted.limit,
        wait_s=wait_s,
    )


def _print_page(page: EventPage, *, as_json: bool) -> None:
    if as_json:
        events = [one.document for one in page.events]
        print_json({"events": events, "after": page.after, "has_more": page.has_more})
        return
    for event in page.events:
        _print_event(event, as_json=False)
    if page.has_more:
        CONSOLE.print(f"more: okane events --after {page.after}", soft_wrap=True)
    elif not page.events:
        CONSOLE.print(
            "no such events: they are recorded from the account's first endpoint on (`okane webhooks add`)",
            soft_wrap=True,
        )


def _print_event(event: WebhookEvent, *, as_json: bool) -> None:
    if as_json:
        print_json(event.document)
    else:
        CONSOLE.print(event_line(event), soft_wrap=True)
