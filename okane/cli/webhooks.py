"""`okane webhooks`: the endpoints of the account whose API key is used, and the deliveries to them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated
from uuid import UUID

import typer

from okane.cli.api_client import Key, Url, endpoint_id, event_id, open_client, parse_moment, plain, split_types
from okane.cli.context import Context, open_context
from okane.cli.options import Data, Json, Yes, check_label, positive_duration
from okane.cli.output import CONSOLE, print_json
from okane.cli.running import run
from okane.cli.webhook_output import (
    print_changed,
    print_deliveries,
    print_endpoint,
    print_endpoint_deliveries,
    print_endpoints,
    print_every_account,
    print_secret,
    print_secrets,
    printable,
)
from okane.client import Client, NewEndpoint
from okane.errors import SetupError
from okane.store import Overview
from okane.store.webhook_deliveries import DeliveryState
from okane.store.webhook_overview import ListedEndpoint
from okane.timestamp_text import format_time

MAX_EMPTY_PAGES = 100  # that `deliveries --state` reads on through: a million deliveries

app = typer.Typer(no_args_is_help=True, add_completion=False)

Which = Annotated[str | None, typer.Argument(help="the endpoint's id (default: the account's only endpoint)")]
EventId = Annotated[str, typer.Argument(help="the event's id, evt_…, from `okane events`")]
Types = Annotated[
    str | None,
    typer.Option(help="event types, separated by commas: payment.succeeded,refund.* (default: the usual ones)"),
]


@app.command()
def ls(
    *,
    data: Data = None,
    every_account: Annotated[
        bool, typer.Option("--every-account", help="of all accounts, from Postgres, those in trouble first")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="with --every-account: how many at most")] = 50,
    url: Url = None,
    key: Key = None,
    json_: Json = False,
) -> None:
    """List the endpoints with their state and their backlog."""

    async def main() -> None:
        if every_account:
            print_every_account(await _every_account(open_context(data), limit), as_json=json_)
            return
        async with open_client(open_context(data), url, key) as client:
            found = await client.webhooks.endpoints()
        if json_:
            print_json({"endpoints": plain(found)})
        elif not found:
            CONSOLE.print("no endpoints: add one with `okane webhooks add URL`")
        else:
            print_endpoints(found)

    run(main())


@app.command()
def show(endpoint: Which = None, *, data: Data = None, url: Url = None, key: Key = None, json_: Json = False) -> None:
    """Show one endpoint with its settings and its last error."""

    async def main() -> None:
        async with open_client(open_context(data), url, key) as client:
            found = await client.webhooks.endpoint(await _chosen(client, endpoint))
        print_endpoint(found, as_json=json_)

    run(main())


@app.command()
def add(
    endpoint_url: Annotated[str, typer.Argument(metavar="URL", help="https://… that requests are sent to")],
    *,
    data: Data = None,
    types: Types = None,
    description: Annotated[str, typer.Option(help="shown in lists")] = "",
    thin: Annotated[bool, typer.Option("--thin", help="send only the payment's id and version")] = False,
    max_in_flight: Annotated[int | None, typer.Option(min=1, max=64, help="requests at a time (default: 8)")] = None,
    rate_limit: Annotated[int | None, typer.Option(min=1, help="requests per second (default: no limit)")] = None,
    asymmetric: Annotated[bool, typer.Option("--asymmetric", help="add a v1a signature (ed25519)")] = False,
    url: Url = None,
    key: Key = None,
    json_: Json = False,
) -> None:
    """Add an endpoint and print its secret. Changes of payments from now on reach it."""
    new = NewEndpoint(
        url=endpoint_url,
        types=None if types is None else split_types(types),
        payload="thin" if thin else None,
        description=check_label(description, "--description") if description else None,
        max_in_flight=max_in_flight,
        rate_limit=rate_limit,
        asymmetric=True if asymmetric else None,
    )

    async def main() -> None:
        async with open_client(open_context(data), url, key) as client:
            made = await client.webhooks.create(new)
        print_secret(made, "added", as_json=json_)

    run(main())


@app.command()
def rm(
    endpoint: Which = None,
    *,
    data: Data = None,
    yes: Yes = False,
    url: Url = None,
    key: Key = None,
    json_: Json = False,
) -> None:
    """Delete an endpoint. When this has returned, no request to it begins."""

    async def main() -> None:
        async with open_client(open_context(data), url, key) as client:
            chosen = await _chosen(client, endpoint)
            if not yes:
                typer.confirm(f"Delete the endpoint {chosen}?", abort=True, err=True)
            await client.webhooks.delete(chosen)
        if json_:
            print_json({"deleted": str(chosen)})
        else:
            CONSOLE.print(f"deleted {chosen}: no request to it begins any more")

    run(main())


@app.command()
def rotate(
    endpoint: Which = None,
    *,
    data: Data = None,
    older_valid_for: Annotated[
        str, typer.Option("--older-valid-for", help="the older secret also signs for: 0, 30m, 24h, 168h")
    ] = "24h",
    url: Url = None,
    key: Key = None,
    json_: Json = False,
) -> None:
    """Give an endpoint a new secret and print it. Both sign until the older one ends."""
    overlap = timedelta(0) if older_valid_for == "0" else positive_duration(older_valid_for)

    async def main() -> None:
        async with open_client(open_context(data), url, key) as client:
            made = await client.webhooks.rotate(await _chosen(client, endpoint), older_valid_for=overlap)
        print_secret(made, "rotated", as_json=json_)

    run(main())


@app.command()
def secret(endpoint: Which = None, *, data: Data = None, url: Url = None, key: Key = None, json_: Json = False) -> None:
    """Print the secrets that verify the requests of an endpoint (scope `operate`)."""

    async def main() -> None:
        async with open_client(open_context(data), url, key) as client:
            found = await client.webhooks.secrets(await _chosen(client, endpoint))
        print_secrets(found, as_json=json_)

    run(main())


@app.command("test")
def send_test(
    endpoint: Which = None, *, data: Data = None, url: Url = None, key: Key = None, json_: Json = False
) -> None:
    """Send a test event now and print the answer. Exit code 1 if it would not count as delivered."""

    async def main() -> bool:
        async with open_client(open_context(data), url, key) as client:
            answer = await client.webhooks.test(await _chosen(client, endpoint))
        if json_:
            print_json(plain(answer))
        else:
            CONSOLE.print(f"{answer.outcome} after {answer.ms:,} ms: {printable(answer.reason)}", soft_wrap=True)
            if answer.text:
                CONSOLE.print(printable(answer.text), soft_wrap=True)
        return answer.outcome == "delivered"

    if not run(main()):
        raise typer.Exit(1)


@app.command()
def enable(
    endpoint: Which = None,
    *,
    data: Data = None,
    from_now: Annotated[bool, typer.Option("--from-now", help="skip the events that it has missed")] = False,
    url: Url = None,
    key: Key = None,
    json_: Json = False,
) -> None:
    """Enable an endpoint. It resumes at its place in the log."""

    async def main() -> None:
        async with open_client(open_context(data), url, key) as client:
            found = await client.webhooks.enable(await _chosen(client, endpoint), from_now=from_now)
        print_changed(found, "enabled", as_json=json_)

    run(main())


@app.command()
def disable(
    endpoint: Which = None, *, data: Data = None, url: Url = None, key: Key = None, json_: Json = False
) -> None:
    """Pause an endpoint. Its place in the log is kept."""

    async def main() -> None:
        async with open_client(open_context(data), url, key) as client:
            found = await client.webhooks.disable(await _chosen(client, endpoint))
        print_changed(found, "disabled", as_json=json_)

    run(main())


@app.command()
def deliveries(
    of: Annotated[
        str | None,
        typer.Argument(metavar="[EVENT|ENDPOINT]", help="an event's or an endpoint's id (default: the only endpoint)"),
    ] = None,
    *,
    data: Data = None,
    state: Annotated[
        DeliveryState | None, typer.Option("--state", help="of an endpoint: delivered, waiting or given_up")
    ] = None,
    after: Annotated[str | None, typer.Option(help="the next page: the place from the end of this one")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="of an endpoint: deliveries of a page")] = 20,
    url: Url = None,
    key: Key = None,
    json_: Json = False,
) -> None:
    """List the deliveries of an event with every attempt, or those of an endpoint, newest events first."""
    if of is not None and of.startswith("evt_"):
        if state is not None or after is not None:
            raise typer.BadParameter("--state and --after are for the deliveries of an endpoint")
        run(_deliveries_of_event(open_context(data), event_id(of), url=url, key=key, as_json=json_))
        return
    states = [] if state is None else [state]

    async def main() -> None:
        async with open_client(open_context(data), url, key) as client:
            chosen = await _chosen(client, of, "an event's (evt_…) or an endpoint's id")
            page = await client.webhooks.endpoint_deliveries(chosen, after=after, states=states, limit=limit)
            for _ in range(MAX_EMPTY_PAGES):  # the API looks at a bounded part at a time
                if page.deliveries or page.after is None:
                    break
                page = await client.webhooks.endpoint_deliveries(chosen, after=page.after, states=states, limit=limit)
        print_endpoint_deliveries(chosen, page, state, as_json=json_)

    run(main())


async def _deliveries_of_event(
    context: Context, event: str, *, url: str | None, key: str | None, as_json: bool
) -> None:
    async with open_client(context, url, key) as client:
        found = await client.webhooks.deliveries(event)
    if as_json:
        print_json({"deliveries": plain(found)})
    elif not found:
        CONSOLE.print("no deliveries: no endpoint has taken it yet, or none subscribes to its type")
    else:
        print_deliveries(found)


@app.command()
def redeliver(
    event: EventId,
    *,
    data: Data = None,
    endpoint: Annotated[str | None, typer.Option(help="the endpoint's id (default: the account's only one)")] = None,
    url: Url = None,
    key: Key = None,
    json_: Json = False,
) -> None:
    """Deliver one event to an endpoint again, even if it was delivered."""

    async def main() -> None:
        async with open_client(open_context(data), url, key) as client:
            chosen = await _chosen(client, endpoint)
            await client.webhooks.redeliver(event_id(event), endpoint_id=chosen)
        if json_:
            print_json({"event": event, "endpoint": str(chosen)})
        else:
            CONSOLE.print(f"{event} is delivered to {chosen} again", soft_wrap=True)

    run(main())


@app.command()
def recover(
    endpoint: Which = None,
    *,
    data: Data = None,
    since: Annotated[str, typer.Option(help="events from: 2h ago, or 2027-01-31T12:00:00Z")],
    until: Annotated[str | None, typer.Option(help="events up to (default: now)")] = None,
    everything: Annotated[bool, typer.Option("--all", help="delivered events too, not only those given up")] = False,
    url: Url = None,
    key: Key = None,
    json_: Json = False,
) -> None:
    """Deliver the events of a time to an endpoint again, after an outage of it."""
    began, ended = parse_moment(since, "--since"), None if until is None else parse_moment(until, "--until")

    async def main() -> None:
        async with open_client(open_context(data), url, key) as client:
            chosen = await _chosen(client, endpoint)
            count = await client.webhooks.recover(chosen, since=began, until=ended, only_failed=not everything)
        what = "all" if everything else "those that were not delivered"
        if json_:
            document = {"endpoint": chosen, "since": began, "until": ended, "all": everything, "events": count}
            print_json(plain(document))
        else:
            span = f"{count:,} event{'' if count == 1 else 's'} since {format_time(began)}"
            CONSOLE.print(f"{span}: {what} are delivered to {chosen} again", soft_wrap=True)

    run(main())


async def _every_account(context: Context, limit: int) -> Sequence[ListedEndpoint]:
    overview = Overview(context.database_url)
    try:
        return await overview.webhook_endpoints(limit)
    finally:
        await overview.aclose()


async def _chosen(client: Client, endpoint: str | None, kind: str = "an endpoint's id") -> UUID:
    """Return the id that was given, or that of the account's only endpoint with a URL. Raises SetupError."""
    if endpoint is not None:
        return endpoint_id(endpoint, kind)
    found = [one for one in await client.webhooks.endpoints() if one.url is not None]
    if len(found) != 1:
        many = "there is no endpoint: `okane webhooks add URL`" if not found else f"there are {len(found)} endpoints"
        raise SetupError(many if not found else f"{many}: name one, from `okane webhooks ls`")
    return found[0].id
