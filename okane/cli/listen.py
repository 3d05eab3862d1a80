"""`okane listen`: forward the account's events to a program on this machine, for development.

The endpoint that it makes has no URL: it only records. It is deleted an hour after its last poll; until then the next
`okane listen` of this account takes it over, with the same secret.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import aiohttp
import typer

from okane.addresses import check_http, shown
from okane.cli.api_client import Key, Url, open_client, parse_moment, plain, split_types
from okane.cli.context import Context, open_context
from okane.cli.forwarding import Back, Forwarded, Forwarder, Lost
from okane.cli.options import Data, Json
from okane.cli.output import CONSOLE, print_json
from okane.cli.running import run
from okane.cli.webhook_output import event_line
from okane.client import Client, CreatedEndpoint, NewEndpoint, Refused
from okane.errors import SetupError

DESCRIPTION = "okane listen"
PATIENCE_S = 10.0  # for the API at the start; later there is no end to it

app = typer.Typer(add_completion=False)


@app.command()
def listen(
    *,
    data: Data = None,
    forward_to: Annotated[str, typer.Option("--forward-to", help="the URL to post to: localhost:3000/hook")],
    since: Annotated[str | None, typer.Option(help="begin with events from: 1h ago, or 2027-01-31T12:00:00Z")] = None,
    after: Annotated[str | None, typer.Option(help="begin behind this place, which an earlier run has printed")] = None,
    types: Annotated[
        str | None, typer.Option(help="only these types: payment.succeeded,payment.* (default: all)")
    ] = None,
    url: Url = None,
    key: Key = None,
    json_: Json = False,
) -> None:
    """Forward events until Ctrl-C, signed with the secret that it prints. Lost connections skip none."""
    if since is not None and after is not None:
        raise typer.BadParameter("give --since or --after, not both")
    options = ListenOptions(
        forward_to=_target(forward_to),
        since=None if since is None else parse_moment(since, "--since"),
        after=after,
        types=None if types is None else split_types(types),
        as_json=json_,
    )
    run(_listen(open_context(data), options, url=url, key=key))


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenOptions:
    """The options of `okane listen`. Without `since` and `after` it begins with the next event."""

    forward_to: str
    since: datetime | None
    after: str | None
    types: Sequence[str] | None
    as_json: bool


def _target(text: str) -> str:
    """Return the URL to post to; without a scheme it is http. Raises BadParameter."""
    target = text if "://" in text else f"http://{text}"
    try:
        check_http(target.partition("?")[0])
    except ValueError as error:
        raise typer.BadParameter(f"it {error}", param_hint="--forward-to") from error
    return target


async def _listen(context: Context, options: ListenOptions, *, url: str | None, key: str | None) -> None:
    """Take or make an endpoint, and forward until Ctrl-C."""
    async with open_client(context, url, key, patience_s=PATIENCE_S) as client:
        made = await take_endpoint(client)
    async with (
        open_client(context, url, key, patience_s=0) as client,
        aiohttp.ClientSession(trust_env=False, cookie_jar=aiohttp.DummyCookieJar()) as http,
    ):
        output = _Output(as_json=options.as_json)
        forwarder = Forwarder(
            client,
            http,
            url=options.forward_to,
            secret=made.secret,
            endpoint_id=made.endpoint.id,
            after=options.after,
            since=None if options.after is not None else options.since or datetime.now(UTC),
            types=options.types,
            report=output.report,
        )
        output.began(options, made)
        try:
            await forwarder.run()
        except Refused as error:
            if error.code == "endpoint_not_found":
                raise SetupError(
                    "the endpoint was deleted: nothing is recorded for it any more. Start again"
                ) from error
            raise
        finally:
            output.ended(forwarder.after, forwarder.since)


async def take_endpoint(client: Client) -> CreatedEndpoint:
    """Return the endpoint of an earlier `okane listen`, or a new one, with its secret."""
    for endpoint in await client.webhooks.endpoints():
        if endpoint.url is None and endpoint.description == DESCRIPTION:
            # A key without `operate` may not see the secret of an endpoint: it gets a new one.
            with contextlib.suppress(Refused):
                return CreatedEndpoint(endpoint, (await client.webhooks.secrets(endpoint.id)).secret)
    return await client.webhooks.create(NewEndpoint(url=None, types=["*"], description=DESCRIPTION))


class _Output:
    """The lines of the command."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def began(self, options: ListenOptions, made: CreatedEndpoint) -> None:
        types = options.types or ["*"]
        if self._as_json:
            target = shown(options.forward_to)
            print_json({"endpoint": str(made.endpoint.id), "secret": made.secret, "types": types, "forward_to": target})
            return
        CONSOLE.print(f"forwarding {', '.join(types)} to {shown(options.forward_to)}. Ctrl-C ends it", soft_wrap=True)
        CONSOLE.print(f"secret  {made.secret}", soft_wrap=True)

    def ended(self, after: str | None, since: datetime | None) -> None:
        if self._as_json:
            print_json({"after": after, "since": plain(since)})
        else:
            place = f"--after {after}" if since is None else f"--since {since.isoformat()}"
            CONSOLE.print(f"to go on from here within the hour: {place}", soft_wrap=True)

    def report(self, seen: Forwarded | Lost | Back) -> None:
        if self._as_json:
            print_json(_document(seen))
        else:
            CONSOLE.print(_line(seen), soft_wrap=True)


def _document(seen: Forwarded | Lost | Back) -> dict[str, Any]:
    match seen:
        case Lost():
            return {"api": "lost", "reason": seen.reason}
        case Back():
            return {"api": "back"}
        case Forwarded():
            return {
                "event": seen.event.id,
                "type": seen.event.type,
                "attempt": seen.attempt,
                "status": seen.status,
                "ms": seen.ms,
                "reason": seen.reason,
                "again_s": seen.again_s,
            }


def _line(seen: Forwarded | Lost | Back) -> str:
    match seen:
        case Lost():
            return f"the API is away ({seen.reason}): trying again"
        case Back():
            return "the API is back"
        case Forwarded():
            answer = seen.reason if seen.status is None else f"HTTP {seen.status}"
            end = " (skipped)" if seen.is_skipped else "" if seen.again_s is None else f", again in {seen.again_s:g} s"
            return f"{event_line(seen.event)}  -> {answer} in {seen.ms} ms{end}"
