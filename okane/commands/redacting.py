"""Commands whose messages about a wrong option or argument repeat no password that was given in its place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from typer.core import TyperCommand, TyperGroup


class RedactingGroup(TyperGroup):
    """A group of commands."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        with _redacting():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        with _redacting():
            return super().invoke(ctx)


class RedactingCommand(TyperCommand):
    """A program that is one command."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        with _redacting():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        with _redacting():
            return super().invoke(ctx)


@contextlib.contextmanager
def _redacting() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if isinstance(getattr(error, "message", None), str) and hasattr(error, "format_message"):
            from okane.logs import redacted  # noqa: PLC0415 - paid for only when there is something to redact

            error.message = redacted(error.message)  # type: ignore[attr-defined]  # checked above
        raise
