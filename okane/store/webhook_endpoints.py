"""The webhook endpoints of accounts: registered, changed, and deleted.

Guarantee: every change of a payment that commits after `create` has returned gets a place in the log. After `finish_delete`
has returned True no dispatcher begins a request to the endpoint.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, LiteralString
from uuid import UUID

import psycopg

from okane.errors import StoreBusy
from okane.store import sql_files
from okane.store.fair_sessions import FairSessions
from okane.store.prepared_statements import Row
from okane.store.session import Session
from okane.store.sql_parameters import milliseconds

CONNECTIONS = 2  # of one process; one account uses one of them
MAX_ENDPOINTS = 16  # of one account
MAX_BACKLOG = 1_000  # events that are counted for one endpoint
KEPT_DELETED = 64  # of one account, so that their deliveries can be read
DELETED_KEEP = timedelta(days=30)
UNPOLLED_KEEP = timedelta(hours=1)  # of an endpoint without a URL, after the last poll of its reader
FIRST_LOCK_S = 5.0  # for the lock of an account's first endpoint, in tries of 250 ms
PAUSE_S = 0.05  # between two tries: changes that wait behind the lock go first

EndpointStatus = Literal["enabled", "disabled", "deleted"]
Payload = Literal["snapshot", "thin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One row of `webhook_endpoints`. `url` is None for an endpoint whose events are only read (`okane listen`).

    `version` counts its changes; the dispatcher that holds its queue confirms them.
    """

    id: UUID
    account_id: str
    url: str | None
    types: Sequence[str]
    payload: Payload = "snapshot"
    api_version: str
    description: str = ""
    max_in_flight: int = 8
    rate_limit: int | None = None
    timeout_s: int = 15
    hold_s: int = 300
    key_generation: int = 1
    older_key_until: datetime | None = None
    asymmetric: bool = False
    status: EndpointStatus = "enabled"
    disabled_reason: str | None = None
    version: int = 1
    created_at: datetime
    starts_after: int


_FIELDS = [field.name for field in dataclasses.fields(Endpoint)]
_COLUMNS = {"asymmetric": "v1a"}  # a reserved word of SQL
WIDTH = len(_FIELDS)  # where the other columns of a statement that returns endpoints begin
ENDPOINT: LiteralString = ", ".join(f"ep.{_COLUMNS.get(name, name)}" for name in _FIELDS)  # `{endpoint}`: alias `ep`

SQL = {
    name: text.replace("{endpoint}", ENDPOINT)
    for name, text in sql_files.load_statements("webhook_endpoints.sql").items()
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEndpoint:
    """An endpoint to create. The caller has checked the URL, the types and the limits."""

    id: UUID
    account_id: str
    url: str | None
    types: Sequence[str]
    api_version: str
    payload: Payload = "snapshot"
    description: str = ""
    max_in_flight: int = 8
    rate_limit: int | None = None
    timeout_s: int = 15
    hold_s: int = 300
    asymmetric: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointState:
    """An endpoint, and how its deliveries stand.

    `backlog`: how many of the next `MAX_BACKLOG` events of the account it has yet to take; `waiting`: failed deliveries that
    are tried again, as many at most. None of it for an endpoint without a URL.
    """

    endpoint: Endpoint
    backlog: int = 0
    waiting: int = 0
    failing_since: datetime | None = None
    failures: int = 0
    last_error: str | None = None


class CreateRefusal(enum.Enum):
    """The reason why an endpoint was not created."""

    TOO_MANY = "the account has its limit of endpoints"
    BUSY = "a transaction that changes payments did not end in time"


class WebhookEndpointStore:
    """The endpoints in one Postgres database. Each method raises StoreUnavailable, or AccountBusy. Time is the database's."""

    def __init__(
        self, url: str, *, timeout: timedelta = timedelta(seconds=5), first_lock_s: float = FIRST_LOCK_S
    ) -> None:
        sessions = [Session(url, name="endpoints", timeout=timeout, in_order=True) for _ in range(CONNECTIONS)]
        self._sessions = FairSessions(sessions)
        self._first_lock_s = first_lock_s

    async def aclose(self) -> None:
        """Close the connections."""
        await self._sessions.aclose()

    async def create(self, new: NewEndpoint) -> Endpoint | CreateRefusal:
        """Create an endpoint that starts at the end of the log; nothing is stored if it is refused.

        The first endpoint of an account waits for the changes of payments that are in progress: their statements began
        without the account, and would not record it.
        """
        ends_s = time.monotonic() + self._first_lock_s
        while True:
            try:
                async with self._sessions.lend(new.account_id) as session, session.transaction() as connection:
                    return await _create(connection, new)
            except StoreBusy:
                if time.monotonic() >= ends_s:
                    return CreateRefusal.BUSY
            await asyncio.sleep(PAUSE_S)

    async def list(self, account_id: str) -> Sequence[EndpointState]:
        """Return the endpoints of an account, oldest first."""
        return await self._states(account_id, None)

    async def get(self, account_id: str, endpoint_id: UUID) -> EndpointState | None:
        """Return an endpoint of the account, None if it has no such endpoint."""
        found = await self._states(account_id, endpoint_id)
        return found[0] if found else None

    async def _states(self, account_id: str, endpoint_id: UUID | None) -> Sequence[EndpointState]:
        parameters = {"account_id": account_id, "id": endpoint_id, "most": MAX_BACKLOG}
        async with self._sessions.lend(account_id) as session:
            return [_state(row) for row in await session.fetch_repeatable(SQL["states"], parameters)]

    async def change(self, account_id: str, endpoint_id: UUID, changed: Mapping[str, Any]) -> Endpoint | None:
        """Change members (of `CHANGEABLE`) of an endpoint; return it, None if the account has no such endpoint."""
        assert changed.keys() <= CHANGEABLE, changed.keys()
        parameters: dict[str, Any] = {name: changed.get(name) for name in CHANGEABLE}
        parameters |= {f"has_{name}": name in changed for name in CHANGEABLE}
        return await self._one(account_id, "change", {"id": endpoint_id, **parameters})

    async def rotate(self, account_id: str, endpoint_id: UUID, *, older_valid_for: timedelta) -> Endpoint | None:
        """Change to the next secret; the one before signs beside it for `older_valid_for`. One that was older still ends."""
        parameters = {"id": endpoint_id, "older_ms": milliseconds(older_valid_for)}
        return await self._one(account_id, "rotate", parameters)

    async def disable(
        self, account_id: str, endpoint_id: UUID, *, reason: str, version: int | None = None
    ) -> Endpoint | None:
        """Pause an endpoint, if it still is in `version`. Its place in the log is kept."""
        return await self._one(account_id, "disable", {"id": endpoint_id, "reason": reason, "seen": version})

    async def enable(
        self, account_id: str, endpoint_id: UUID, *, from_now: bool, version: int | None = None
    ) -> Endpoint | None:
        """Resume an endpoint, if it still is in `version`, at its place in the log; with `from_now` at the end: earlier
        deliveries are given up then."""
        async with self._sessions.lend(account_id) as session, session.transaction() as connection:
            parameters = {"account_id": account_id, "id": endpoint_id, "from_now": from_now, "seen": version}
            found = await _first(connection, SQL["enable"], parameters)
            if found is None:
                return None
            await connection.execute(SQL["restart_queue"], parameters)
            if from_now:
                await connection.execute(SQL["give_up_waiting"], parameters | {"reason": "skipped"})
                await connection.execute(SQL["end_replays"], parameters)
            return read_endpoint(found)

    async def is_confirmed(self, endpoint: Endpoint) -> bool:
        """Tell if the dispatcher that holds the queue works by this version of the endpoint, or none holds it."""
        async with self._sessions.lend(endpoint.account_id) as session:
            parameters = {"id": endpoint.id, "version": endpoint.version}
            return bool((await session.fetch_repeatable(SQL["confirmed"], parameters))[0][0])

    async def delete(self, account_id: str, endpoint_id: UUID) -> Endpoint | None:
        """Mark an endpoint as deleted; return it, None if the account has no such endpoint. `finish_delete` does the rest.

        One that is marked already is returned, too, until that is done. An hour after the last endpoint of an account its
        changes are not recorded any more (`tidy`).
        """
        async with self._sessions.lend(account_id) as session, session.transaction() as connection:
            parameters = {"account_id": account_id, "id": endpoint_id, "kept": KEPT_DELETED}
            await connection.execute(SQL["lock_account"], parameters)
            found = await _first(connection, SQL["delete"], parameters)
            if found is None:
                found = await _first(connection, SQL["deleting"], parameters)
                return None if found is None else read_endpoint(found)
            await connection.execute(SQL["forget_oldest_deleted"], parameters)
            return read_endpoint(found)

    async def finish_delete(self, endpoint: Endpoint) -> bool:
        """Remove the queue of a deleted endpoint once its dispatcher has confirmed that, or holds no lease.

        Tells if it is gone. A dispatcher that takes the queue in this moment has written its lease before, or finds no queue.
        """
        async with self._sessions.lend(endpoint.account_id) as session, session.transaction() as connection:
            parameters = {"account_id": endpoint.account_id, "id": endpoint.id, "reason": "deleted"}
            found = await _first(connection, SQL["remove_queue"], parameters)
            if found is None or not found[0]:
                return False
            await connection.execute(SQL["give_up_waiting"], parameters)
            await connection.execute(SQL["end_replays"], parameters)
            return True

    async def poll(self, account_id: str, endpoint_id: UUID) -> Endpoint | None:
        """Return an endpoint, and note that its reader is there: one without a URL is deleted an hour after the last poll."""
        return await self._one(account_id, "poll", {"id": endpoint_id})

    async def tidy(self) -> Sequence[Endpoint]:
        """Mark endpoints without a reader as deleted, and return all that are deleted and still have a queue.

        Accounts without an endpoint are forgotten, and rows of endpoints that were deleted long ago.
        """
        async with self._sessions.lend("") as session:
            unpolled_ms, keep_ms = milliseconds(UNPOLLED_KEEP), milliseconds(DELETED_KEEP)
            for account_id, endpoint_id in await session.fetch(SQL["unpolled"], {"unpolled_ms": unpolled_ms}):
                async with session.transaction() as connection:
                    parameters = {"account_id": account_id, "id": endpoint_id}
                    await connection.execute(SQL["lock_account"], parameters)
                    await connection.execute(SQL["delete"], parameters)
            for (account_id,) in await session.fetch(SQL["unused_accounts"]):
                async with session.transaction() as connection:
                    await connection.execute(SQL["lock_account"], {"account_id": account_id})
                    await connection.execute(SQL["forget_account"], {"account_id": account_id})
            await session.fetch(SQL["forget_deleted"], {"keep_ms": keep_ms})
            return [read_endpoint(row) for row in await session.fetch(SQL["unfinished"])]

    async def _one(self, account_id: str, statement: str, parameters: Mapping[str, Any]) -> Endpoint | None:
        async with self._sessions.lend(account_id) as session:
            found = await session.fetch(SQL[statement], {"account_id": account_id, **parameters})
        return read_endpoint(found[0]) if found else None


CHANGEABLE = frozenset(
    {"url", "types", "description", "max_in_flight", "rate_limit", "timeout_s", "hold_s", "asymmetric"}
)


def read_endpoint(row: Row) -> Endpoint:
    """Return the endpoint in the first columns of a row."""
    return Endpoint(**dict(zip(_FIELDS, row, strict=False)))


def _state(row: Row) -> EndpointState:
    backlog, waiting, failing_since, failures, last_error = row[WIDTH:]
    return EndpointState(
        endpoint=read_endpoint(row),
        backlog=backlog,
        waiting=waiting,
        failing_since=failing_since,
        failures=failures,
        last_error=last_error,
    )


async def _create(connection: psycopg.AsyncConnection[Row], new: NewEndpoint) -> Endpoint | CreateRefusal:
    parameters = {**dataclasses.asdict(new), "types": list(new.types), "most": MAX_ENDPOINTS}
    if await _first(connection, SQL["lock_account"], parameters) is None:
        await connection.execute(SQL["limit_lock"])
        await connection.execute(SQL["lock_outbox"])
        await connection.execute(SQL["add_account"], parameters)
    made = await _first(connection, SQL["create"], parameters)
    return CreateRefusal.TOO_MANY if made is None else read_endpoint(made)


async def _first(
    connection: psycopg.AsyncConnection[Row], statement: LiteralString, parameters: Mapping[str, Any]
) -> Row | None:
    return await (await connection.execute(statement, parameters)).fetchone()
