"""Derives a command's options from a frozen dataclass: each option is defined once, by its field.

The `metadata` of a field:
    help      the help text (required)
    min, max  the range of a number; `nan` and `inf` are refused for every float
    flag      the option's name, if it is not that of the field
    repeated  True for an option that may be given several times
    parse     turns the text of the option (of a repeated one: the list of texts) into the field's value; may raise ValueError
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import typing
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

T = TypeVar("T")


def taking(kind: type[T], **fallbacks: Callable[[], Any]) -> Callable[[Callable[[T], None]], Callable[..., None]]:
    """Decorate `command(options)` so that typer sees one `--option` for each field of `kind`.

    A field without a default is a required option. One that `fallbacks` names gets its default from there when the
    command runs. A ValueError from the dataclass becomes a usage error.
    """
    hints = typing.get_type_hints(kind)
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=Annotated[
                _hint(field, hints[field.name], field.name in fallbacks), _option(field, hints[field.name])
            ],
            default=None if field.name in fallbacks else _default(field),
        )
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
    ]

    def decorate(command: Callable[[T], None]) -> Callable[..., None]:
        def wrapped(**values: Any) -> None:
            missing = {name: ask() for name, ask in fallbacks.items() if values[name] is None}
            try:
                options = kind(**values | _parsed(kind, values) | missing)
            except ValueError as error:
                raise typer.BadParameter(str(error)) from error
            command(options)

        wrapped.__name__ = command.__name__
        wrapped.__doc__ = command.__doc__
        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return wrapped

    return decorate


def _parsed(kind: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the fields that have a `parse`, as their fields hold them. Raises ValueError."""
    fields = (field for field in dataclasses.fields(kind) if "parse" in field.metadata)
    return {field.name: field.metadata["parse"](values[field.name]) for field in fields}


def _hint(field: dataclasses.Field[Any], hint: Any, optional: bool) -> Any:
    if field.metadata.get("repeated"):
        return list[str]
    if "parse" in field.metadata:
        return str
    return hint | None if optional else hint


def _option(field: dataclasses.Field[Any], hint: Any) -> Any:
    flags = [field.metadata["flag"]] if "flag" in field.metadata else []
    settings = {name: field.metadata[name] for name in ("min", "max") if name in field.metadata}
    if float in (hint, *typing.get_args(hint)):
        settings["callback"] = finite
    return typer.Option(*flags, help=field.metadata["help"], **settings)


def finite(value: float | None) -> float | None:
    """Refuse `nan` and `inf`, which are in every range."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter("must be a number")
    return value


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.metadata.get("repeated"):
        return []
    if "parse" in field.metadata:
        return ""
    if field.default is not dataclasses.MISSING:
        return field.default
    return inspect.Parameter.empty
