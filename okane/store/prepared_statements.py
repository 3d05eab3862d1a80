"""Prepared statements on one connection, without psycopg's cursors: for the statements that run for every batch.

One round trip, binary in both directions. psycopg still connects, waits, raises its errors and loads values; its analysis of
the statement and its parameters, for every batch, is left out.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import generators, pq, waiting
from psycopg.adapt import Transformer
from psycopg.pq.abc import PGresult

from okane.store.binary_encoding import Encoder, encoder

Row = tuple[Any, ...]

_LOOK_AGAIN_S = 60.0  # how often psycopg checks the socket without an event; callers have a deadline of their own

_PARAMETER = re.compile(r"%\((\w+)\)s::(\w+(?:\[\])?)")


@dataclass(frozen=True, slots=True)
class PreparedStatement:
    """A statement with numbered parameters. `encoders` has their names in the order of the numbers."""

    name: bytes
    text: bytes
    encoders: Mapping[str, Encoder]

    @classmethod
    def of(cls, name: str, text: str) -> PreparedStatement:
        """Convert a statement with named parameters, each with a cast to its type."""
        types = dict(_PARAMETER.findall(text))
        numbers = {parameter: number for number, parameter in enumerate(types, 1)}
        numbered = _PARAMETER.sub(lambda match: f"${numbers[match[1]]}::{match[2]}", text)
        if "%" in numbered:
            raise ValueError(f"{name} has a parameter without a cast")
        encoders = {parameter: encoder(type_name) for parameter, type_name in types.items()}
        return cls(f"okane_{name}".encode(), numbered.encode(), encoders)


class PreparedStatements:
    """The prepared statements of one connection. One runs at a time; cancelling it ends the connection."""

    def __init__(self, connection: psycopg.AsyncConnection[Row]) -> None:
        self._connection = connection
        self._loaders = Transformer(connection)
        self._prepared: set[bytes] = set()

    async def fetch(self, statement: PreparedStatement, parameters: Mapping[str, Any]) -> Sequence[Row]:
        """Run a statement in a transaction of its own and return its rows. Raises psycopg's errors."""
        values = [encode(parameters[name]) for name, encode in statement.encoders.items()]
        pgconn = self._connection.pgconn
        if statement.name not in self._prepared:
            pgconn.send_prepare(statement.name, statement.text)
            await self._result()
            self._prepared.add(statement.name)
        pgconn.send_query_prepared(statement.name, values, [pq.Format.BINARY] * len(values), pq.Format.BINARY)
        result = await self._result()
        self._loaders.set_pgresult(result, format=pq.Format.BINARY)
        return self._loaders.load_rows(0, result.ntuples, tuple)

    async def _result(self) -> PGresult:
        pgconn = self._connection.pgconn
        try:
            results: list[PGresult] = await waiting.wait_async(
                generators.execute(pgconn), pgconn.socket, interval=_LOOK_AGAIN_S
            )
        except asyncio.CancelledError:
            # The statement continues on the server. Cancelling it there would wait for a server that may not answer, so the
            # connection is dropped instead.
            pgconn.finish()
            raise
        for result in results:
            if result.status == pq.ExecStatus.FATAL_ERROR:
                raise psycopg.errors.error_from_result(result)
        return results[-1]
