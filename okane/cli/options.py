"""Options: those that several commands share, and those that a frozen dataclass defines, each once, by its field.

A field is an option if its `metadata` has `help`:
    help      the help text
    computed  True for an option whose default the command computes when it runs
    min, max  the range of a number; `nan` and `inf` are refused for every float
    flag      the option's name, if it is not that of the field; a bool that has one gets no `--no-…` beside it
    repeated  True for an option that may be given several times
    parse     turns the text of the option (of a repeated one: the list of texts) into the field's value; may raise ValueError
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import typing
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from okane.card_numbers import holds_card_number

MOST_DAYS = 3_650


def finite(value: float | None) -> float | None:
    """Refuse `nan` and `inf`, which are in every range."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter("must be a number")
    return value


def check_label(text: str, option: str) -> str:
    """Return the text. Raises BadParameter where a line of a log or a table cannot show it."""
    if not text.strip() or not text.isprintable() or len(text) > 200:
        raise typer.BadParameter("must be 1 to 200 characters that can be printed", param_hint=option)
    if holds_card_number(text):
        raise typer.BadParameter("looks like the number of a card", param_hint=option)
    return text


def check_process_name(text: str) -> str:
    """Return the name of a process. Raises BadParameter where the history of a payment would take it for another actor."""
    from okane.store import is_reserved_name

    if is_reserved_name(check_label(text, "--name")):
        raise typer.BadParameter("must not begin with the word api, console or operator", param_hint="--name")
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
        raise typer.BadParameter("must be above 0")
    return parsed


def whole_days(text: str, option: str) -> timedelta:
    """Parse `7d`. Raises BadParameter, for zero too."""
    number = text.strip().removesuffix("d")
    if not (text.strip().endswith("d") and number.isascii() and number.isdigit() and 0 < int(number) <= MOST_DAYS):
        raise typer.BadParameter("expected days: 7d", param_hint=option)
    return timedelta(days=int(number))


Data = Annotated[Path | None, typer.Option("--data", help="data folder of `okane up` (default: .okane)")]
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of text")]
Interval = Annotated[float, typer.Option(min=0.2, max=86_400, callback=finite, help="seconds between refreshes")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="skip the confirmation")]
Processes = Annotated[
    int, typer.Option(min=1, max=256, help="processes on this machine, which share the port or the consumer group")
]
T = TypeVar("T")


def options_from(
    kind: type[T], defaults: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda _given: {}
) -> Callable[[Callable[[T], None]], Callable[..., None]]:
    """Decorate `command(options)` so that typer sees one `--option` for each field of `kind` that has a help text.

    `defaults` returns the values of `computed` fields, from the options as they were given (None: not given). A ValueError
    from a `parse` or from the dataclass becomes a usage error.
    """
    hints = typing.get_type_hints(kind)
    fields = [field for field in dataclasses.fields(kind) if "help" in field.metadata]  # type: ignore[arg-type]  # a T
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=Annotated[_hint(field, hints[field.name]), _option(field, hints[field.name])],
            default=_default(field),
        )
        for field in fields
    ]

    def decorate(command: Callable[[T], None]) -> Callable[..., None]:
        def wrapped(**given: Any) -> None:
            values = {field.name: _parse(field, given[field.name]) for field in fields if given[field.name] is not None}
            try:
                options = kind(**{**defaults(given), **values})
            except ValueError as error:
                raise typer.BadParameter(str(error)) from error
            command(options)

        wrapped.__name__ = command.__name__
        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by typer
        wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        wrapped.__doc__ = command.__doc__
        return wrapped

    return decorate


def _parse(field: dataclasses.Field[Any], value: Any) -> Any:
    if "parse" not in field.metadata:
        return value
    try:
        return field.metadata["parse"](value)
    except ValueError as error:
        flag = field.metadata.get("flag", f"--{field.name.replace('_', '-')}")
        raise typer.BadParameter(str(error), param_hint=flag) from error


def _hint(field: dataclasses.Field[Any], hint: Any) -> Any:
    if field.metadata.get("repeated"):
        return list[str]
    given = str if "parse" in field.metadata else hint
    return given | None if "computed" in field.metadata else given


def _option(field: dataclasses.Field[Any], hint: Any) -> Any:
    flags = [field.metadata["flag"]] if "flag" in field.metadata else []
    settings = {name: field.metadata[name] for name in ("min", "max") if name in field.metadata}
    if float in (hint, *typing.get_args(hint)):
        settings["callback"] = finite
    return typer.Option(*flags, help=field.metadata["help"], **settings)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.metadata.get("computed"):
        return None
    if field.metadata.get("repeated"):
        return []
    return "" if "parse" in field.metadata else field.default
