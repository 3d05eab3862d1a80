"""`okane providers`: list the payment providers, switch them on, to draining, or off, and explain the choice of one. It needs
Postgres alone."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.table import Table

from okane.api_key import ACCOUNT
from okane.cli.context import Context, open_context
from okane.cli.options import Data, Json
from okane.cli.output import CONSOLE, iso, print_json
from okane.cli.provider_route import show_route
from okane.cli.running import run
from okane.currencies import CURRENCIES, MAX_AMOUNT_MINOR
from okane.duration_text import format_duration
from okane.errors import SetupError
from okane.intake.provider_switch import ProviderSwitch, Switched, UnknownProvider, reason_refusal
from okane.providers.config import NAME
from okane.providers.routing import CaptureMethod, RouteRequest, weight_key
from okane.store import OPERATOR
from okane.store.providers import Mode, ProviderState, ProviderStore
from okane.timestamp_text import format_time

app = typer.Typer(no_args_is_help=True, add_completion=False)

Name = Annotated[str, typer.Argument(metavar="NAME", help="from `okane providers ls`")]
Reason = Annotated[str, typer.Option(help="the reason, shown in the list")]
Force = Annotated[
    bool, typer.Option("--force", help="also for a name that neither the providers file nor the list has")
]


@app.command()
def ls(*, data: Data = None, json_: Json = False) -> None:
    """List the providers: mode, circuit breaker, and who changed the mode when and why."""
    run(_list(open_context(data), as_json=json_))


@app.command()
def enable(name: Name, *, data: Data = None, reason: Reason, force: Force = False, json_: Json = False) -> None:
    """Charge at a provider again. Its circuit breaker closes, and payments that wait are tried at once."""
    run(_switch(open_context(data), name, "on", reason=reason, force=force, as_json=json_))


@app.command()
def drain(name: Name, *, data: Data = None, reason: Reason, force: Force = False, json_: Json = False) -> None:
    """Begin no new charge at a provider. Payments that it may have charged are still looked up there."""
    run(_switch(open_context(data), name, "drain", reason=reason, force=force, as_json=json_))


@app.command()
def disable(name: Name, *, data: Data = None, reason: Reason, force: Force = False, json_: Json = False) -> None:
    """Call a provider no more, from the next claim of every worker on. Its payments wait, or go to the next provider."""
    run(_switch(open_context(data), name, "off", reason=reason, force=force, as_json=json_))


@app.command()
def route(
    *,
    amount: Annotated[int, typer.Option(min=1, max=MAX_AMOUNT_MINOR, help="in minor units of the currency")],
    currency: Annotated[str | None, typer.Option(help="ISO 4217; the server's default if absent")] = None,
    account: Annotated[str, typer.Option(help="the account of the payment")] = ACCOUNT,
    capture_method: Annotated[CaptureMethod, typer.Option(help="of the payment")] = "automatic",
    payment_method: Annotated[
        str | None, typer.Option(help="the token of the payment, or the id of a saved payment method")
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option("--idempotency-key", help="of the payment: weights select by it")
    ] = None,
    data: Data = None,
    json_: Json = False,
) -> None:
    """Explain which provider a payment would go to: each route with its reason, the candidates and their state."""
    context = open_context(data)
    currency = currency or context.settings.default_currency
    if currency not in CURRENCIES:
        raise typer.BadParameter(f"{currency} is not a currency of new payments", param_hint="--currency")
    request = RouteRequest(
        amount_minor=amount,
        currency=currency,
        account_id=account,
        key="" if idempotency_key is None else weight_key(account, idempotency_key),
        manual_capture=capture_method == "manual",
        payment_method=payment_method,
    )
    run(show_route(context, request, as_json=json_))


@contextlib.asynccontextmanager
async def _open_switch(context: Context) -> AsyncIterator[ProviderSwitch]:
    store = ProviderStore(context.database_url)
    try:
        yield ProviderSwitch(context.settings, store)
    finally:
        await store.aclose()


async def _list(context: Context, *, as_json: bool) -> None:
    """Print the configured providers, and others that have a row."""
    async with _open_switch(context) as switch:
        providers = await switch.list()
    if as_json:
        print_json({"providers": [_document(one) for one in providers]})
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("provider", "mode", "circuit", "changed", "by", "reason"):
        table.add_column(column, no_wrap=column != "reason")
    for one in providers:
        table.add_row(
            one.name,
            one.mode,
            _circuit(one),
            "" if one.changed_at is None else format_time(one.changed_at),
            one.changed_by or "",
            one.reason or "",
        )
    CONSOLE.print(table, soft_wrap=not CONSOLE.is_terminal)


async def _switch(context: Context, name: str, mode: Mode, *, reason: str, force: bool, as_json: bool) -> None:
    """Set the mode of one provider, and wake payments that wait if it is on now."""
    if (refusal := reason_refusal(reason)) is not None:
        raise SetupError(f"--reason {refusal}")
    if force and not NAME.fullmatch(name):
        raise SetupError("a provider's name is a small letter, then up to 31 of a-z 0-9 _ -")
    async with _open_switch(context) as switch:
        done = await switch.set_mode(name, mode, reason=reason, actor=OPERATOR, force=force)
    if isinstance(done, UnknownProvider):
        known = ", ".join(done.known)
        raise SetupError(f"no provider is called {name!r}: there are {known} (--force takes any name)")
    assert isinstance(done, Switched)  # it was decided by no state that was read before
    state, woken = done.state, done.woken
    if as_json:
        print_json(_document(state) if woken is None else {**_document(state), "woken": woken})
        return
    CONSOLE.print(f"{name} is {mode}: {reason}", soft_wrap=True)
    if woken:
        what = "1 payment that waited is" if woken == 1 else f"{woken:,} payments that waited are"
        CONSOLE.print(f"{what} tried now")


def _circuit(one: ProviderState) -> str:
    if one.open_s > 0:
        return f"open for {format_duration(timedelta(seconds=one.open_s))}"
    if one.suspected_by is not None:
        return f"suspected by {one.suspected_by}"
    return "closed"


def _document(one: ProviderState) -> dict[str, Any]:
    found = dataclasses.asdict(one)
    for name in ("changed_at", "suspected_at"):
        found[name] = None if found[name] is None else iso(found[name])
    return found
