"""Errors of a command: one line on stderr, exit code 2, and no password in it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup


def fail(message: str) -> NoReturn:
    """Print the message and exit with code 2."""
    typer.echo(f"okane: {message}", err=True)
    sys.exit(2)


class _Redacting:
    """Mixin: usage errors repeat no password that was given as an option or argument."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        with _redacting():
            return super().make_context(*arguments, **options)  # type: ignore[misc]  # the class beside this one has it

    def invoke(self, ctx: Any) -> Any:
        with _redacting():
            return super().invoke(ctx)  # type: ignore[misc]  # the same


class RedactingGroup(_Redacting, TyperGroup):
    """A group of commands."""


class RedactingCommand(_Redacting, TyperCommand):
    """A program that is one command."""


@contextlib.contextmanager
def _redacting() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if isinstance(getattr(error, "message", None), str) and hasattr(error, "format_message"):
            from okane.logs import redacted

            error.message = redacted(error.message)  # type: ignore[attr-defined]  # checked above
        raise
