"""The statements that pages run, with what their plans read, for tests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg
import pytest

from okane.store import api_keys
from okane.store.prepared_statements import PreparedStatement
from okane.store.session import Session

_WRITES = re.compile(r"\b(?:INSERT|UPDATE|DELETE)\b")
_EXPLAIN = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)"
_TYPE = re.compile(rb"\$(\d+)::(\w+(?:\[\])?)")


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement: its beginning, the rows that its plan has read, and the pages of 8 kB."""

    text: str
    rows: int = 0
    blocks: int = 0


@dataclass(slots=True)
class Watched:
    """The statements since the last `clear`. With `explains`, each is explained before it runs."""

    explains: bool = True
    statements: list[Statement] = field(default_factory=list)

    def clear(self) -> None:
        self.statements.clear()

    @property
    def rows(self) -> int:
        return sum(one.rows for one in self.statements)

    @property
    def blocks(self) -> int:
        return sum(one.blocks for one in self.statements)


def watch(monkeypatch: pytest.MonkeyPatch, *, explains: bool) -> Watched:
    """Watch all sessions of this process until the test ends, but for the checks of keys, which no page waits for each time,
    and for statements that write: a page has none."""
    watched = Watched(explains)
    fetch = Session.fetch

    async def watching(
        self: Session, statement: LiteralString | PreparedStatement, parameters: Mapping[str, Any] | None = None
    ) -> Any:
        text = statement.text.decode() if isinstance(statement, PreparedStatement) else statement
        if statement == api_keys.SQL["find"] or _WRITES.search(re.sub(r"--.*", "", text)):
            return await fetch(self, statement, parameters)
        rows = blocks = 0
        if watched.explains:
            async with self._held() as connection:
                plan = await _explain(connection, statement, parameters or {})
            rows = sum(_rows(node) for node in _nodes(plan))
            blocks = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        watched.statements.append(Statement(" ".join(text.split())[:200], rows, blocks))
        return await fetch(self, statement, parameters)

    def transaction(_self: Session) -> None:
        raise AssertionError("a page reads by single statements")

    monkeypatch.setattr(Session, "fetch", watching)
    monkeypatch.setattr(Session, "transaction", transaction)
    return watched


async def _explain(
    connection: psycopg.AsyncConnection[Any],
    statement: LiteralString | PreparedStatement,
    parameters: Mapping[str, Any],
) -> dict[str, Any]:
    """Run a statement as the session runs it, prepared where its parameters have types, and return its plan."""
    cursor = psycopg.AsyncClientCursor(connection)
    try:
        made = statement if isinstance(statement, PreparedStatement) else PreparedStatement.of("watched", statement)
    except ValueError:  # psycopg alone knows the types: the plan is that of the values
        await cursor.execute(f"{_EXPLAIN} {statement}".encode(), parameters)
        row = await cursor.fetchone()
    else:
        types = {int(number): kind for number, kind in _TYPE.findall(made.text)}
        given = b", ".join(b"%s::" + types[number] for number in sorted(types))
        await connection.execute(b"PREPARE watched AS " + made.text)
        try:
            call = f"{_EXPLAIN} EXECUTE watched".encode() + (b"(" + given + b")" if given else b"")
            await cursor.execute(call, [parameters[name] for name in made.encoders])
            row = await cursor.fetchone()
        finally:
            await connection.execute("DEALLOCATE watched")
    assert row is not None
    plan: dict[str, Any] = row[0][0]["Plan"]
    return plan


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def _rows(node: Mapping[str, Any]) -> int:
    """Return the rows that a node of a plan has read from a table or an index, those that a filter dropped included."""
    if "Scan" not in node["Node Type"] or not ("Relation Name" in node or "Index Name" in node):
        return 0
    dropped = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return int((node["Actual Rows"] + dropped) * node["Actual Loops"])
