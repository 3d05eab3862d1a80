"""PreparedStatement statements on one connection, below psycopg's cursors: what runs for every batch of payments.

One round trip in binary both ways. psycopg still makes the connection, waits for it, names its errors and reads its values;
what is left out is finding out anew, for every batch, what the statement and its parameters are.
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

_LOOK_AGAIN_S = 60.0  # psycopg looks after the socket so often by itself; whoever waits has a deadline

_PARAMETER = re.compile(r"%\((\w+)\)s::(\w+(?:\[\])?)")


@dataclass(frozen=True, slots=True)
class PreparedStatement:
    """A statement with numbered parameters. `encoders` has their names in that order."""

    name: bytes
    text: bytes
    encoders: Mapping[str, Encoder]

    @classmethod
    def of(cls, name: str, text: str) -> PreparedStatement:
        """From a statement with named parameters, each with a cast that says its type."""
        types = dict(_PARAMETER.findall(text))
        numbers = {parameter: number for number, parameter in enumerate(types, 1)}
        numbered = _PARAMETER.sub(lambda match: f"${numbers[match[1]]}::{match[2]}", text)
        if "%" in numbered:
            raise ValueError(f"{name} has a parameter without a cast")
        encoders = {parameter: encoder(type_name) for parameter, type_name in types.items()}
        return cls(f"okane_{name}".encode(), numbered.encode(), encoders)


class PreparedStatements:
    """One connection and what is prepared on it. One statement at a time; one that is canceled ends the connection."""

    def __init__(self, connection: psycopg.AsyncConnection[Row]) -> None:
        self._connection = connection
        self._loaders = Transformer(connection)
        self._prepared: set[bytes] = set()

    async def fetch(self, statement: PreparedStatement, parameters: Mapping[str, Any]) -> Sequence[Row]:
        """Run it in a transaction of its own and return its rows. Raises psycopg's errors."""
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
            # What is under way goes on in the server. To have it canceled there would be to wait for a server that may be
            # silent: the connection is given up instead.
            pgconn.finish()
            raise
        for result in results:
            if result.status == pq.ExecStatus.FATAL_ERROR:
                raise psycopg.errors.error_from_result(result)
        return results[-1]
