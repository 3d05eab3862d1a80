"""The SQL of the store, read from the named blocks in `sql/*.sql` (`-- name: …`, comment lines, one statement)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from typing import LiteralString

from okane.store import columns
from okane.store.prepared_statements import PreparedStatement

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


def load_statements(file: str, *, blocks_of: str | None = None) -> Mapping[str, LiteralString]:
    """Return the statements of one file by name. The text is the project's own, hence literal.

    `{name}` stands for another block of the file, or of the file `blocks_of`, or for a list of columns (`columns.LISTS`).
    """
    own = _blocks(file)
    blocks = {**columns.LISTS, **({} if blocks_of is None else _blocks(blocks_of)), **own}
    return {name: _filled(blocks[name], blocks) for name in own}


def _blocks(file: str) -> Mapping[str, LiteralString]:
    text = (resources.files("okane.store") / "sql" / file).read_text()
    parts = _NAME.split(text)
    names, bodies = parts[1::2], parts[2::2]
    if len(set(names)) != len(names):
        raise ValueError(f"{file} names a statement twice")
    return {name: body.strip() for name, body in zip(names, bodies, strict=True)}


def _filled(body: LiteralString, blocks: Mapping[str, LiteralString]) -> LiteralString:
    for name, block in blocks.items():
        if f"{{{name}}}" in body:
            body = body.replace(f"{{{name}}}", _filled(block, blocks))
    return body


def prepare_statements(file: str, *names: str, blocks_of: str | None = None) -> Mapping[str, PreparedStatement]:
    """Return some statements of one file as prepared statements."""
    texts = load_statements(file, blocks_of=blocks_of)
    return {name: PreparedStatement.of(name, texts[name]) for name in names}
