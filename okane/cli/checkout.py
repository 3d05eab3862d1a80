"""Run `torture` and `bench`, which are in a checkout only: the wheel holds the product alone."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from okane.cli.errors import fail

_CHECKOUT = Path(__file__).resolve().parents[2]
# All options go to the program's own command line.
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def run_program(folder: str, arguments: Sequence[str]) -> None:
    """Run the program in `folder` of the checkout with these arguments; fail where there is no checkout."""
    if not (_CHECKOUT / folder / "__main__.py").exists():
        fail(f"{folder} is part of a checkout, not of the installed package: run `python3 run.py {folder}` in one")
    import_module(f"{folder}.__main__").main(arguments)
