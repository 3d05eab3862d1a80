"""What the commands share: options that many of them have, what they find themselves in, how they run and fail."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from okane.commands.options import finite

if TYPE_CHECKING:
    from okane.commands.context import Context
    from okane.config import Settings


def label(text: str, option: str) -> str:
    """Refuse a name that a line of a log or a table cannot show."""
    if not text.strip() or not text.isprintable() or len(text) > 200:
        raise typer.BadParameter("must be 1 to 200 characters that can be printed", param_hint=option)
    return text


def duration(text: str) -> timedelta:
    """Read `30m` or `24h`. Raises BadParameter, also for no time at all."""
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


def context(data: Path | None) -> Context:
    from okane import logs
    from okane.commands.context import find

    logs.configure(level="warning", format_="console", process="okane")
    return find(data)


def settings(**options: object) -> Settings:
    """The settings from the environment, with what the command line says on top."""
    from okane.config import load

    return load(**{name: value for name, value in options.items() if value is not None})


def log_as(settings: Settings, process: str) -> None:
    from okane import logs

    logs.configure(level=settings.log_level, format_=settings.log_format, process=process)


def run(main_: Coroutine[Any, Any, Any]) -> Any:
    """Run on uvloop where there is one."""
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main_)


def fail(message: str) -> NoReturn:
    typer.echo(f"okane: {message}", err=True)
    sys.exit(2)
