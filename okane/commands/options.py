"""Turns a frozen dataclass of options, whose fields carry `metadata["help"]`, into a command's signature: a help text
stands once, where the option is defined."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

T = TypeVar("T")


def taking(kind: type[T], **fallbacks: Callable[[], Any]) -> Callable[[Callable[[T], None]], Callable[..., None]]:
    """Decorates `command(options)` so that typer sees one `--option` for each field of `kind`.

    A field without a default is a required option. One that `fallbacks` names gets its default from there when the
    command runs. A ValueError from the dataclass becomes a usage error.
    """
    hints = typing.get_type_hints(kind)
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=Annotated[_hint(hints[field.name], field.name in fallbacks), _option(field)],
            default=None if field.name in fallbacks else _default(field),
        )
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
    ]

    def decorate(command: Callable[[T], None]) -> Callable[..., None]:
        def wrapped(**values: Any) -> None:
            missing = {name: ask() for name, ask in fallbacks.items() if values[name] is None}
            try:
                options = kind(**values | missing)
            except ValueError as error:
                raise typer.BadParameter(str(error)) from error
            command(options)

        wrapped.__name__ = command.__name__
        wrapped.__doc__ = command.__doc__
        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return wrapped

    return decorate


def _hint(hint: Any, optional: bool) -> Any:
    return hint | None if optional else hint


def _option(field: dataclasses.Field[Any]) -> Any:
    return typer.Option(help=field.metadata["help"])


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return inspect.Parameter.empty
