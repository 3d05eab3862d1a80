"""The journals of captures, voids and refunds: answers to clients, the books of providers, and the rows of Postgres."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import LiteralString

import psycopg

from okane.operation import OperationKind
from okane.simulator.operation_journal import OperationEntry
from okane.store.history import OperationEventRow, OperationRow
from torture.gateway.books import read_refunds, read_taken

__all__ = [
    "Move",
    "OperationEventRow",
    "OperationHistory",
    "OperationRequest",
    "OperationRow",
    "are_decided",
    "parse_moves",
    "read_gateway_moves",
    "read_moves",
]


_OPEN: LiteralString = "SELECT count(*) FROM operations WHERE sweep_at IS NOT NULL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One capture, void or refund in a provider's books. Without `moved` it was declined, or it failed later.

    `amount_minor` is the money that it moved, or let go. `made_by` is the operation that its request named.
    """

    made_by: str
    payment_id: str
    kind: OperationKind
    amount_minor: int
    currency: str
    moved: bool
    at_s: float  # since the epoch, by the provider's clock
    provider: str = "http"


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRequest:
    """One POST of a capture, void or refund and its answer, as the client saw them.

    `key` None: okane has given it one. `amount_minor` None asks for all that is left. `status` is the HTTP status, 0 if no
    complete answer came.
    """

    key: str | None
    payment_id: str
    kind: OperationKind
    amount_minor: int | None
    status: int = 0
    operation_id: str | None = None

    @property
    def acknowledged(self) -> bool:
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationHistory:
    """The journals of one run. `rows` by operation; `events` by operation, each in the order of its versions."""

    requests: Sequence[OperationRequest] = ()
    moves: Sequence[Move] = ()
    rows: Mapping[str, OperationRow] = field(default_factory=dict)
    events: Mapping[str, Sequence[OperationEventRow]] = field(default_factory=dict)


async def are_decided(database_url: str) -> bool:
    """Return True if no operation is open or to be looked up again, False also while Postgres does not answer."""
    with contextlib.suppress(psycopg.Error):
        async with await psycopg.AsyncConnection.connect(database_url, connect_timeout=2) as connection:
            row = await (await connection.execute(_OPEN)).fetchone()
            return row is not None and row[0] == 0
    return False


def parse_moves(lines: Iterable[bytes]) -> Sequence[Move]:
    """Return the captures, voids and refunds in lines of the mock provider's journal, as they are now."""
    now = datetime.now(UTC)
    return [
        Move(
            made_by=entry.operation_id,
            payment_id=entry.payment_id,
            kind=OperationKind(entry.kind),
            amount_minor=entry.amount,
            currency=entry.currency,
            moved=entry.status_at(now) == "succeeded",
            at_s=datetime.fromisoformat(entry.at).timestamp(),
        )
        for entry in map(OperationEntry.from_line, lines)
    ]


def read_moves(journal: Path) -> Sequence[Move]:
    """Return those of the mock provider whose charges are in this file. A torn last line was never answered for."""
    path = journal.with_name(f"{journal.name}.operations")
    if not path.exists():
        return []
    with path.open("rb") as lines:
        return parse_moves(line for line in lines if line.endswith(b"\n"))


def read_gateway_moves(journal: Path) -> Sequence[Move]:
    """Return the captures, voids and refunds of the gateway's journal, as they are in the end.

    A key is the id of its operation, and after a manual retry a number more.
    """
    taken = [
        Move(
            made_by=one.key.partition(":")[0],
            payment_id=one.payment_id,
            kind=OperationKind(one.kind),
            amount_minor=one.amount,
            currency=one.currency.upper(),
            moved=True,
            at_s=one.at_s,
            provider="stripe",
        )
        for one in read_taken(journal)
    ]
    refunds = [
        Move(
            made_by=one.operation_id,
            payment_id=one.payment_id,
            kind=OperationKind.REFUND,
            amount_minor=one.amount,
            currency=one.currency.upper(),
            moved=one.status == "succeeded",
            at_s=one.at_s,
            provider="stripe",
        )
        for one in read_refunds(journal)
    ]
    return [*taken, *refunds]
