"""Make the installed Stripe World run on Python 3.13: two mechanical edits of its files. Run by that Python, once.

Its sources are those of Python 3.14, which allows `except A, B:` without brackets and evaluates annotations late.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path

_BARE = re.compile(r"^(\s*except) ([\w.]+(?:, *[\w.]+)+):", re.MULTILINE)
_LATE = "from __future__ import annotations\n"


def edited(source: str) -> str:
    """Return the source with both edits. Editing it again changes nothing."""
    source = _BARE.sub(r"\1 (\2):", source)
    if _LATE in source:
        return source
    first = next(iter(ast.parse(source).body), None)
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    lines = source.splitlines(keepends=True)
    lines.insert(first.end_lineno or 0 if first is not None and is_docstring else 0, _LATE)
    return "".join(lines)


def main() -> None:
    if sys.version_info >= (3, 14):
        return
    for package in ("seahaven", "seahaven_stripe_world"):
        spec = importlib.util.find_spec(package)
        assert spec is not None, package
        for folder in spec.submodule_search_locations or ():
            for file in Path(folder).rglob("*.py"):
                file.write_text(edited(file.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
