"""The API as `okane webhooks`, `okane events` and `okane listen` use it: with the rights of one API key."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar
from uuid import UUID

import typer

from okane.addresses import check_http, shown
from okane.cli.context import Context
from okane.cli.options import positive_duration
from okane.client import AccessDenied, Client, NoAnswer, Refused, arguments
from okane.errors import SetupError

PATIENCE_S = 10.0  # an operator waits

T = TypeVar("T")

Url = Annotated[str | None, typer.Option("--url", help="the API's base URL (default: the running one)")]
Key = Annotated[
    str | None, typer.Option("--key", help="the API key to send (default: OKANE_API_KEY, or that of the running one)")
]


@contextlib.asynccontextmanager
async def open_client(
    context: Context, url: str | None, key: str | None, *, patience_s: float | None = None
) -> AsyncIterator[Client]:
    """Open a client for the length of the block, in which an error of the API becomes a SetupError."""
    base = api_url(context, url)
    try:
        patience_s = PATIENCE_S if patience_s is None else patience_s
        client = Client(base, key=key or context.api_key, patience_s=patience_s)
    except ValueError as error:
        raise SetupError(str(error)) from error
    try:
        async with client:
            yield client
    except AccessDenied as error:
        raise SetupError(f"{error.detail}: name a key with --key or OKANE_API_KEY (`okane keys create`)") from error
    except Refused as error:
        raise SetupError(refusal(error)) from error
    except NoAnswer as error:
        raise SetupError(f"the API at {shown(base)} does not answer ({error.reason}): `okane doctor`") from error


async def first(listed: AsyncIterator[T], limit: int) -> tuple[list[T], bool]:
    """Return the first `limit` of a list, and True if it has more."""
    found: list[T] = []
    async for one in listed:
        if len(found) == limit:
            return found, True
        found.append(one)
    return found, False


def api_url(context: Context, url: str | None) -> str:
    """Return the API's base URL: the option, or that of the context. Raises SetupError."""
    try:
        return context.api_url if url is None else check_http(url, userinfo=False)
    except ValueError as error:
        raise SetupError(f"--url {error}") from error


def refusal(error: Refused) -> str:
    """Return the reason of a refusal in one line, with all members that are wrong."""
    wrong = [f"{one.get('pointer', '')}: {one.get('detail', '')}" for one in error.errors]
    others = [text for text in wrong if text not in error.detail]
    return " ".join("; ".join([error.detail, *others]).split()) + f" ({error.code})"


def plain(value: Any) -> Any:
    """Return a value of the client as JSON has it, without the members that only Python needs."""
    match value:
        case datetime():
            return value.isoformat()
        case UUID():
            return str(value)
        case Mapping():
            return {name: plain(one) for name, one in value.items()}
        case str():
            return str(value)
        case Sequence():
            return [plain(one) for one in value]
    if dataclasses.is_dataclass(value):
        return {one.name: plain(getattr(value, one.name)) for one in dataclasses.fields(value) if one.repr}
    return value


def endpoint_id(text: str, kind: str = "an endpoint's id") -> UUID:
    """Parse the id of an endpoint. Raises SetupError."""
    try:
        return arguments.endpoint_id(text)
    except ValueError:
        raise SetupError(f"{text[:64]!r} is not {kind}: see `okane webhooks ls`") from None


def event_id(text: str) -> str:
    """Parse the id of an event. Raises SetupError."""
    try:
        return arguments.event_id(text)
    except ValueError:
        raise SetupError(f"{text[:64]!r} is not an event's id (evt_…): see `okane events`") from None


def split_types(text: str) -> list[str]:
    """Return event types that are separated by commas."""
    found = [one.strip() for one in text.split(",")]
    if not all(found):
        raise typer.BadParameter("event types are separated by commas: payment.succeeded,payment.failed")
    return found


def parse_moment(text: str, option: str) -> datetime:
    """Parse `2h` (ago) or an ISO 8601 time with a zone. Raises BadParameter."""
    with contextlib.suppress(ValueError):
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise typer.BadParameter("a time has a zone: 2027-01-31T12:00:00Z", param_hint=option)
        return moment
    try:
        return datetime.now(UTC) - positive_duration(text)
    except typer.BadParameter:
        raise typer.BadParameter(
            f"{text[:64]!r} is neither a duration like 2h nor a time like 2027-01-31T12:00:00Z", param_hint=option
        ) from None
    except OverflowError:
        raise typer.BadParameter("is too long ago", param_hint=option) from None
