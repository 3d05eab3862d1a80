"""The command line of a bench that has parts: the options of all of them, and the report as text or JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, Self, TypeVar

from bench.rendering import render
from bench.report import Report
from bench.targets import Target


class PartOptions(Protocol):
    """The options that every such bench has."""

    @property
    def only(self) -> str: ...
    @property
    def rounds(self) -> int: ...
    @property
    def quick(self) -> bool: ...
    @property
    def json(self) -> bool: ...
    def made_quick(self) -> Self: ...


Options = TypeVar("Options", bound=PartOptions)


def parser_of(
    prog: str, description: str | None, parts: Mapping[str, str], default: PartOptions
) -> argparse.ArgumentParser:
    """Return a parser of these options; the bench adds its own."""
    parser = argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    titles = "; ".join(f"{letter}: {title}" for letter, title in parts.items())
    parser.add_argument("--only", default=default.only, help=f"the parts to run: {titles}")
    parser.add_argument("--rounds", type=int, default=default.rounds, help="of every comparison; the median counts")
    parser.add_argument("--quick", action="store_true", help="small numbers: shows that it works, measures nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else to stdout")
    return parser


def measure_and_print(
    parser: argparse.ArgumentParser,
    make: Callable[..., Options],
    run: Callable[[Options], Report],
    targets: Sequence[Target],
) -> None:
    """Run the bench with the options of the command line, and print its report."""
    try:
        options = make(**vars(parser.parse_args()))
    except ValueError as error:
        parser.error(str(error))
    report = run(options.made_quick() if options.quick else options)
    print(json.dumps(report.to_json()) if options.json else render(report, targets))
