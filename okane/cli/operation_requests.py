"""The options and the errors of commands that request a capture or a refund."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated
from uuid import uuid4

import typer

from okane.client import NoAnswer, arguments
from okane.currencies import MAX_AMOUNT_MINOR
from okane.errors import SetupError

Amount = Annotated[
    int | None,
    typer.Option(min=1, max=MAX_AMOUNT_MINOR, help="in minor units of the payment's currency (default: all)"),
]


def _currency(given: str) -> str:
    try:
        return arguments.currency(given)
    except ValueError as error:
        raise SetupError(str(error)) from None


Currency = Annotated[
    str | None, typer.Option(parser=_currency, metavar="CODE", help="refused unless it is the payment's")
]
IdempotencyKey = Annotated[
    str | None, typer.Option("--idempotency-key", help="of this request, to repeat it safely (default: a new one)")
]


def chosen_key(given: str | None) -> str:
    """Return the idempotency key that was given, or a new one. Raises BadParameter."""
    if given is None:
        return f"cli-{uuid4()}"
    try:
        return arguments.idempotency_key(given)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--idempotency-key") from None


@contextlib.contextmanager
def requested(key: str) -> Iterator[None]:
    """Say how a request that got no answer is repeated safely: it may have been carried out."""
    try:
        yield
    except NoAnswer as error:
        raise SetupError(f"{error}: it may have been carried out; repeat it with --idempotency-key {key}") from None
