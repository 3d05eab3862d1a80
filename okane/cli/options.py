"""Options: those that several commands share, and those that a frozen dataclass defines, each once, by its field.

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
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer


def finite(value: float | None) -> float | None:
    """Refuse `nan` and `inf`, which are in every range."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter("must be a number")
    return value


def check_label(text: str, option: str) -> str:
    """Return the text. Raises BadParameter where a line of a log or a table cannot show it."""
    if not text.strip() or not text.isprintable() or len(text) > 200:
        raise typer.BadParameter("must be 1 to 200 characters that can be printed", param_hint=option)
    return text


def positive_duration(text: str) -> timedelta:
    """Parse `30m` or `24h`. Raises BadParameter, for zero too."""
    from okane.config import parse_duration

    try:
        parsed = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    assert isinstance(parsed, timedelta)
    if not parsed:
        raise typer.BadParameter("must be longer than nothing")
    return parsed


Data = Annotated[Path | None, typer.Option("--data", help="data folder of `okane up` (default: .okane)")]
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of text")]
Interval = Annotated[float, typer.Option(min=0.2, max=86_400, callback=finite, help="seconds between refreshes")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]
Processes = Annotated[
    int, typer.Option(min=1, max=256, help="copies on this machine: they share the port, or the consumer group")
]
T = TypeVar("T")


def options_from(kind: type[T], **fallbacks: Callable[[], Any]) -> Callable[[Callable[[T], None]], Callable[..., None]]:
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
            missing = {name: default() for name, default in fallbacks.items() if values[name] is None}
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


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.metadata.get("repeated"):
        return []
    if "parse" in field.metadata:
        return ""
    if field.default is not dataclasses.MISSING:
        return field.default
    return inspect.Parameter.empty
