"""Endpoints, deliveries and events as the commands print them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from okane.cli.api_client import plain
from okane.cli.output import CONSOLE, print_json
from okane.client import CreatedEndpoint, Delivery, DeliveryPage, Endpoint, EndpointSecrets, WebhookEvent
from okane.duration_text import format_duration
from okane.store.webhook_overview import ListedEndpoint
from okane.timestamp_text import format_time

MAX_COUNTED = 1_000  # events that the API counts for one endpoint
MAX_SAID = 80  # characters of a failing endpoint's answer in a list
_NONE = timedelta(0)
_READ = "its events are read (okane listen)"


def print_endpoints(found: Sequence[Endpoint]) -> None:
    """Print two lines for each endpoint: its state and backlog, and where it sends what."""
    for one in found:
        waiting = f", {_counted(one.waiting)} tried again" if one.waiting else ""
        behind = "" if one.url is None else f"  backlog {_counted(one.backlog)}{waiting}"
        CONSOLE.print(f"{one.id}  {state(one)}{behind}", soft_wrap=True)
        about = (one.url or _READ, ",".join(one.types), one.description)
        CONSOLE.print(f"    {'  '.join(printable(part) for part in about if part)}", soft_wrap=True)


def print_every_account(found: Sequence[ListedEndpoint], *, as_json: bool) -> None:
    """Print two lines for each endpoint, as operators see it: whose it is, its state, and the dispatcher that has it."""
    if as_json:
        print_json({"endpoints": plain(found)})
        return
    for one in found:
        owner = "" if one.url is None else f"  {one.behind:,} behind  {one.owner or 'no dispatcher'}"
        CONSOLE.print(f"{one.id}  {state(one)}{owner}", soft_wrap=True)
        CONSOLE.print(f"    account {one.account_id}  {one.url or _READ}", soft_wrap=True)
    if not found:
        CONSOLE.print("no account has an endpoint")


def state(endpoint: Endpoint | ListedEndpoint) -> str:
    """Return `enabled`, `failing for …: reason` or `disabled: reason`, in one line, fit for a terminal."""
    if endpoint.status != "enabled":
        return (
            f"{endpoint.status}: {printable(endpoint.disabled_reason)}" if endpoint.disabled_reason else endpoint.status
        )
    if endpoint.failing_since is None:
        return "enabled"
    failing = format_duration(max(datetime.now(UTC) - endpoint.failing_since, _NONE))
    if not endpoint.last_error:
        return f"failing for {failing}"
    outcome, _, answered = endpoint.last_error.partition("\n")
    said = printable(" ".join(answered.split()))
    return f"failing for {failing}: {printable(outcome)}" + (f" ({_shortened(said)})" if said else "")


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


def print_deliveries(found: Sequence[Delivery]) -> None:
    """Print a line for each endpoint with the state of the delivery, and one for each of its attempts."""
    for one in found:
        again = "" if one.next_at is None else f", next {format_time(one.next_at)}"
        CONSOLE.print(f"{one.endpoint_id}  {one.state}{again}", soft_wrap=True)
        kept = [(each.at, each.status, each.ms, each.reason) for each in one.earlier]
        last = (one.at, one.status, one.ms, one.reason)
        first = max(1, one.attempts - len(kept))  # of a long delivery the oldest attempts are not kept
        for number, (at, status, ms, reason) in enumerate([*kept, last] if one.attempts else (), start=first):
            answer = "no answer" if status is None else f"HTTP {status}"
            took = "" if ms is None else f" after {ms:,} ms"
            why = "" if reason is None else f"  {printable(reason)}"
            CONSOLE.print(f"    {number}  {format_time(at)}  {answer}{took}{why}", soft_wrap=True)


def print_endpoint_deliveries(endpoint_id: UUID, page: DeliveryPage, state: str | None, *, as_json: bool) -> None:
    """Print a line for each delivery of an endpoint with its last answer, and where the next page begins."""
    if as_json:
        print_json(plain(page))
        return
    for one in page.deliveries:
        again = "" if one.next_at is None else f", next {format_time(one.next_at)}"
        tried = f"{one.attempts} attempt{'' if one.attempts == 1 else 's'}"
        line = f"{format_time(one.at)}  {one.state:<9}  {one.event_id}  {one.type}  {tried}{_answer(one)}{again}"
        CONSOLE.print(line, soft_wrap=True)
    if page.after is not None:
        filter_ = "" if state is None else f" --state {state}"
        command = f"okane webhooks deliveries {endpoint_id}{filter_} --after {page.after}"
        CONSOLE.print(f"{'more' if page.deliveries else 'none so far; go on'}: {command}", soft_wrap=True)
    elif not page.deliveries:
        CONSOLE.print(f"no deliveries{'' if state is None else f' that are {state}'}")


def _answer(one: Delivery) -> str:
    """Return the last answer of a delivery in one line, without a body."""
    if one.status is not None:
        return f", HTTP {one.status}" + ("" if one.ms is None else f" after {one.ms:,} ms")
    return "" if one.reason is None else f", {printable(one.reason.partition(chr(10))[0])}"


def event_line(event: WebhookEvent) -> str:
    """Return an event as one line: time, type, id, and the payment's amount and key."""
    at = event.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    line = f"{at}  {event.type:<24} {event.id}"
    payment = event.payment
    if payment is None or payment.amount is None:
        return line
    return f"{line}  {payment.amount} {payment.currency}  {printable(payment.idempotency_key or '')}"


def printable(text: str) -> str:
    """Return the text without what a terminal would obey. Its further lines are marked: they are not ours."""
    lines = text.rstrip("\n").split("\n")
    return "\n        | ".join(
        "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line) for line in lines
    )


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_SAID else f"{text[:MAX_SAID]}…"


def _counted(number: int) -> str:
    """Return a number that the API counts up to `MAX_COUNTED`."""
    return f"{number:,}+" if number >= MAX_COUNTED else f"{number:,}"
