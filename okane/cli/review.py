"""Payments that need a review."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer

from okane.cli import shared
from okane.cli.shared import Data, Json, Yes

app = typer.Typer(help="Payments that need a review: a human decides what became of them.", no_args_is_help=True)


class Decision(StrEnum):
    """The statuses that a decision may give a payment."""

    SUCCESS = "success"
    FAILED_FINAL = "failed_final"


@app.command()
def ls(
    *,
    data: Data = None,
    account: Annotated[str | None, typer.Option(help="only this one's")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    before: Annotated[str | None, typer.Option(help="the next page: the last ID of this one")] = None,
    json_: Json = False,
) -> None:
    """List payments that need a review, newest first."""
    from okane.commands import review as command

    shared.run(command.ls(shared.context(data), account=account, limit=limit, before=before, as_json=json_))


@app.command()
def show(payment_id: str, *, data: Data = None, json_: Json = False) -> None:
    """Show one payment, what to search for at the provider, and its timeline."""
    from okane.commands import review as command

    shared.run(command.show(shared.context(data), payment_id, as_json=json_))


@app.command()
def resolve(
    payment_id: str,
    *,
    data: Data = None,
    decision: Annotated[Decision, typer.Option("--as", help="what the provider says became of it")],
    reason: Annotated[str, typer.Option(help="why: kept in the payment's history")],
    provider_ref: Annotated[
        str | None, typer.Option("--provider-ref", help="the charge that was found at the provider, with success")
    ] = None,
    yes: Yes = False,
    json_: Json = False,
) -> None:
    """Decide a payment. The same decision again is harmless; another one is refused."""
    from okane.commands import review as command

    if not yes and sys.stdin.isatty():
        typer.confirm(f"Decide for good that payment {payment_id} is {decision}?", abort=True, err=True)
    shared.run(
        command.resolve(
            shared.context(data),
            payment_id,
            decision=decision.value,
            reason=reason,
            provider_ref=provider_ref,
            as_json=json_,
        )
    )
