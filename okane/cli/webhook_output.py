"""Endpoints, deliveries and events as the commands print them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from rich.table import Table

from okane.cli.api_client import plain
from okane.cli.output import CONSOLE, format_duration, format_time, print_json
from okane.client import CreatedEndpoint, Delivery, Endpoint, EndpointSecrets, WebhookEvent

MAX_COUNTED = 1_000  # events that the API counts for one endpoint
_NONE = timedelta(0)


def endpoints_table(found: Sequence[Endpoint]) -> Table:
    """Return a row for each endpoint: its state, and how many events it has yet to take."""
    table = _table("endpoint", "url", "state", "backlog", "types", "description")
    for one in found:
        table.add_row(
            str(one.id), one.url or "- (okane listen)", state(one), backlog(one), ",".join(one.types), one.description
        )
    return table


def state(endpoint: Endpoint) -> str:
    """Return `enabled`, `failing for …: reason` or `disabled: reason`."""
    if endpoint.status != "enabled":
        return f"{endpoint.status}: {endpoint.disabled_reason}" if endpoint.disabled_reason else endpoint.status
    if endpoint.failing_since is None:
        return "enabled"
    failing = format_duration(max(datetime.now(UTC) - endpoint.failing_since, _NONE))
    return f"failing for {failing}: {endpoint.last_error}" if endpoint.last_error else f"failing for {failing}"


def backlog(endpoint: Endpoint) -> str:
    """Return the number of events that the endpoint has yet to take; it is counted up to a bound."""
    if endpoint.url is None:
        return "-"
    return f"{endpoint.backlog:,}{'+' if endpoint.backlog >= MAX_COUNTED else ''}"


def print_endpoint(endpoint: Endpoint, *, as_json: bool) -> None:
    """Print one endpoint with all its members."""
    document = plain(endpoint)
    if as_json:
        print_json(document)
        return
    for name, value in document.items():
        if value is not None:
            text = ",".join(value) if isinstance(value, list) else printable(str(value))
            CONSOLE.print(f"{name:<16} {text}", soft_wrap=True)


def print_secret(made: CreatedEndpoint, verb: str, *, as_json: bool) -> None:
    """Print the secret alone in its line, so that a script can take it."""
    if as_json:
        print_json({**plain(made.endpoint), "secret": made.secret})
        return
    CONSOLE.print(made.secret, soft_wrap=True)
    until = made.endpoint.older_key_until
    older = (
        ""
        if until is None or until <= datetime.now(UTC)
        else f". The older secret also signs until {format_time(until)}"
    )
    CONSOLE.print(
        f"{verb} {made.endpoint.id} ({made.endpoint.url}): this secret signs its requests{older}", soft_wrap=True
    )


def print_secrets(found: EndpointSecrets, *, as_json: bool) -> None:
    """Print the secrets, the present one alone in the first line."""
    if as_json:
        print_json({**plain(found), "secret": found.secret, "older_secret": found.older_secret})
        return
    CONSOLE.print(found.secret, soft_wrap=True)
    if found.older_secret is not None and found.older_key_until is not None:
        CONSOLE.print(f"older, until {format_time(found.older_key_until)}: {found.older_secret}", soft_wrap=True)
    if found.public_key is not None:
        CONSOLE.print(f"public key of v1a: {found.public_key}", soft_wrap=True)


def print_changed(endpoint: Endpoint, verb: str, *, as_json: bool) -> None:
    """Print that an endpoint was changed."""
    if as_json:
        print_json(plain(endpoint))
    else:
        CONSOLE.print(f"{verb} {endpoint.id} ({endpoint.url or 'okane listen'})", soft_wrap=True)


def deliveries_table(found: Sequence[Delivery]) -> Table:
    """Return a row for each attempt, the last one of each endpoint with the state of the delivery."""
    table = _table("endpoint", "attempt", "at", "state", "status", "ms", "reason", "next")
    for one in found:
        first = one.attempts - len(one.earlier)
        for number, earlier in enumerate(one.earlier, start=first):
            table.add_row(
                str(one.endpoint_id),
                str(number),
                format_time(earlier.at),
                "failed",
                _number(earlier.status),
                _number(earlier.ms),
                earlier.reason or "",
                "",
            )
        table.add_row(
            str(one.endpoint_id),
            str(one.attempts),
            "-" if one.at is None else format_time(one.at),
            one.state,
            _number(one.status),
            _number(one.ms),
            printable(one.reason or ""),
            "" if one.next_at is None else format_time(one.next_at),
        )
    return table


def event_line(event: WebhookEvent) -> str:
    """Return an event as one line: time, type, id, and the payment's amount and key."""
    at = event.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    line = f"{at}  {event.type:<24} {event.id}"
    payment = event.payment
    if payment is None or payment.amount is None:
        return line
    return f"{line}  {payment.amount} {payment.currency}  {printable(payment.idempotency_key or '')}"


def printable(text: str) -> str:
    """Return the text without what a terminal would obey."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column in ("endpoint", "attempt", "at", "status", "ms", "next", "backlog"))
    return table
