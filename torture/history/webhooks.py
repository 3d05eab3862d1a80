"""The journals of webhooks: the endpoints as their owner knows them, all that the receiver got, and Postgres' tables.

`standardwebhooks` verifies the signatures here, and the types of changes are named from the documents: neither is okane's
code, which is under test.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg
from standardwebhooks import Webhook

from okane.payment import Status
from okane.store.history import EventRow
from torture.receiver.journal import Arrival, read_arrivals

CONFIRMED_S: Final = 15.0  # a changed endpoint is read again within its lease, 10 s, and what was in hand has gone out
_TYPE_OF: Final[Mapping[Status, str]] = {
    Status.SUCCESS: "payment.succeeded",
    Status.FAILED_FINAL: "payment.failed",
    Status.CANCELED: "payment.canceled",
    Status.NEEDS_REVIEW: "payment.review_required",
    Status.FAILED_RETRYABLE: "payment.retry_scheduled",
    Status.UNKNOWN: "payment.outcome_unknown",
    Status.REQUIRES_ACTION: "payment.action_required",
    Status.SUBMITTED: "payment.submitted",
    Status.AUTHORIZED: "payment.authorized",
}
_TYPE_OF_EVENT: Final[Mapping[str, str | None]] = {
    **dict.fromkeys(("claimed", "capture_requested", "void_requested", "refund_requested")),
    **dict.fromkeys(("refund_canceled", "void_failed")),
    "retried": "payment.retried",
    "capture_failed": "payment.capture_failed",
    "refunded": "refund.succeeded",
    "refund_failed": "refund.failed",
    "dispute_opened": "dispute.opened",
    "dispute_closed": "dispute.closed",
}

_COMMITTED: LiteralString = """
    SELECT payment_id::text, version, extract(epoch FROM coalesce(pg_xact_commit_timestamp(xmin), at))::float8
    FROM payment_events"""
_LOG: LiteralString = """
    SELECT position, account_id, payment_id::text, version, type FROM webhook_events ORDER BY position"""
_QUEUES: LiteralString = """
    SELECT q.endpoint_id::text, q.done_to FROM webhook_queues q JOIN webhook_endpoints e ON e.id = q.endpoint_id
    WHERE e.status <> 'deleted' AND e.url IS NOT NULL"""
_UNDELIVERED: LiteralString = """
    SELECT endpoint_id::text, position, state, coalesce(reason, '') FROM webhook_deliveries WHERE state <> 'delivered'"""

_OPEN: LiteralString = """
    SELECT (SELECT count(*) FROM webhook_outbox)
         + (SELECT count(*) FROM webhook_deliveries d JOIN webhook_queues q USING (endpoint_id) WHERE d.state = 'waiting')
         + (SELECT count(*) FROM webhook_queues q JOIN webhook_endpoints e ON e.id = q.endpoint_id, webhook_sequencer s
            WHERE e.status <> 'deleted' AND e.url IS NOT NULL AND q.done_to < s.last)"""

# Those that are due soon are left out: they may be delivered before they are asked for.
_LATE: LiteralString = """
    SELECT 'evt_' || replace(e.payment_id::text, '-', '') || '_' || e.version, d.endpoint_id::text
    FROM webhook_deliveries d JOIN webhook_events e USING (position) JOIN webhook_endpoints ep ON ep.id = d.endpoint_id
    WHERE d.state = 'waiting' AND d.attempts > 0 AND d.next_at > now() + interval '20 s' AND ep.status = 'enabled'"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A secret of an endpoint. Requests may be signed with it from `asked_s` on, and must be soon after `known_s`."""

    text: str
    asked_s: float
    known_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An endpoint as its owner knows it. `path` is its URL at the receiver. Times are seconds since the epoch: `created_s`
    and `deleted_s` when the answer was there."""

    id: str
    path: str
    account_id: str
    types: tuple[str, ...]
    created_s: float
    secrets: tuple[Secret, ...]
    deleted_s: float | None = None

    def subscribes(self, type_: str) -> bool:
        """Return True if events of this type go to it."""
        return any(one in (type_, "*") or (one[-1] == "*" and type_.startswith(one[:-1])) for one in self.types)


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request that the receiver got. `signed_by` are the numbers of the endpoint's secrets that verify it; `skew_s` is
    its `webhook-timestamp` beyond its arrival. `broken` says why it could not be read."""

    path: str
    webhook_id: str
    began_s: float
    ended_s: float
    accepted: bool
    signed_by: tuple[int, ...] = ()
    skew_s: float = 0.0
    digest: str = ""  # of the body
    event_id: str = ""  # the rest is from the body
    type: str = ""
    account_id: str = ""
    payment_id: str = ""
    version: int = 0
    broken: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRow:
    """One row of the log of events."""

    position: int
    account_id: str
    payment_id: str
    version: int
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A time in which the result of a delivery may be lost, and of `most` at most. `cuts_off` if an owner may outlive its
    lease in it, and leave a request on its way."""

    what: str
    since_s: float
    until_s: float
    cuts_off: bool = False
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Delay:
    """A time in which something takes `by_s` longer, once."""

    since_s: float
    until_s: float
    by_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two times in which the same load was delivered: without, and beside an endpoint that never answers."""

    alone: tuple[float, float]
    beside_dead: tuple[float, float]
    dead_path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookTables:
    """The tables of Postgres at rest. `committed_s` is when each change was committed, by payment and version."""

    committed_s: Mapping[tuple[str, int], float] = field(default_factory=dict)
    log: Sequence[LogRow] = ()
    last: int = 0
    outbox_changes: int = 0
    done_to: Mapping[str, int] = field(default_factory=dict)  # by endpoint
    waiting: Mapping[str, int] = field(default_factory=dict)  # deliveries that wait, by endpoint
    given_up: Mapping[tuple[str, int], str] = field(default_factory=dict)  # the reason, by endpoint and position


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookHistory:
    """All journals of webhooks of one run."""

    endpoints: Sequence[Endpoint]
    received: Sequence[Received]
    tables: WebhookTables
    troubles: Sequence[Trouble] = ()
    delays: Sequence[Delay] = ()  # of the dispatchers, the stalls among them
    stalls: Sequence[Delay] = ()  # of the machine
    comparison: Comparison | None = None


def type_of(change: EventRow, before: Status) -> str | None:
    """Return the type of a change, by the status before it; None if it is not reported."""
    if change.event in _TYPE_OF_EVENT:
        return _TYPE_OF_EVENT[change.event]
    if change.event == "late_result" and not (change.status is Status.NEEDS_REVIEW and before is not change.status):
        return "payment.late_result"
    return _TYPE_OF.get(change.status)


def reported(events: Sequence[EventRow]) -> Iterable[tuple[EventRow, str]]:
    """Yield the changes of one payment that are reported, each with its type."""
    status = Status.PENDING
    for change in events:
        type_ = type_of(change, status)
        status = change.status
        if type_ is not None:
            yield change, type_


def read_received(journal: Path, endpoints: Iterable[Endpoint]) -> Sequence[Received]:
    """Return the requests of the receiver's journal, verified with the secrets of these endpoints."""
    verifiers = {one.path: [Webhook(secret.text) for secret in one.secrets] for one in endpoints}
    return [_received(arrival, verifiers.get(arrival.path, ())) for arrival in read_arrivals(journal)]


async def read_tables(database_url: str) -> WebhookTables:
    """Return Postgres' tables. Raises psycopg.Error."""
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        committed = {(one[0], one[1]): one[2] async for one in await connection.execute(_COMMITTED)}
        log = [
            LogRow(
                position=position,
                account_id=sys.intern(account),
                payment_id=payment_id,
                version=version,
                type=sys.intern(type_),
            )
            async for position, account, payment_id, version, type_ in await connection.execute(_LOG)
        ]
        done_to = {endpoint: place async for endpoint, place in await connection.execute(_QUEUES)}
        waiting: dict[str, int] = {}
        given_up: dict[tuple[str, int], str] = {}
        async for endpoint, position, state, reason in await connection.execute(_UNDELIVERED):
            if state == "waiting":
                waiting[endpoint] = waiting.get(endpoint, 0) + 1
            else:
                given_up[endpoint, position] = reason
        return WebhookTables(
            committed_s=committed,
            log=log,
            last=await _number(connection, "SELECT last FROM webhook_sequencer"),
            outbox_changes=await _number(connection, "SELECT count(*) FROM webhook_outbox"),
            done_to=done_to,
            waiting=waiting,
            given_up=given_up,
        )


async def delivered(database_url: str) -> bool:
    """Return True if nothing is to be sequenced or delivered, False also while Postgres does not answer."""
    with contextlib.suppress(psycopg.Error):
        async with await psycopg.AsyncConnection.connect(database_url, connect_timeout=2) as connection:
            return await _number(connection, _OPEN) == 0
    return False


async def read_late(database_url: str) -> Sequence[tuple[str, str]]:
    """Return the failed deliveries that wait for a long time: the ids of event and endpoint. There are none
    while Postgres is away."""
    with contextlib.suppress(psycopg.Error):
        async with await psycopg.AsyncConnection.connect(database_url, connect_timeout=2) as connection:
            return [(event, endpoint) async for event, endpoint in await connection.execute(_LATE)]
    return ()


async def _number(connection: psycopg.AsyncConnection[Any], query: LiteralString) -> int:
    row = await (await connection.execute(query)).fetchone()
    return int(row[0]) if row is not None else 0


def _received(arrival: Arrival, verifiers: Sequence[Webhook]) -> Received:
    webhook_id = arrival.headers.get("webhook-id", "")
    about: dict[str, Any] = {
        "path": sys.intern(arrival.path),
        "webhook_id": webhook_id,
        "began_s": arrival.began_s,
        "ended_s": arrival.ended_s,
        "accepted": arrival.accepted,
    }
    try:
        sent_at = datetime.fromtimestamp(int(arrival.headers["webhook-timestamp"]), UTC)
        signatures = set(arrival.headers["webhook-signature"].split(" "))
        document = json.loads(arrival.body)
        # A `webhook_endpoint` event has no payment: its endpoint has the same members.
        data = document["data"]  # a payment, alone or beside its refund, capture or dispute; or an endpoint
        subject = data["payment"] if "payment" in data else data["endpoint"]
        return Received(
            **about,
            signed_by=tuple(
                number
                for number, one in enumerate(verifiers)
                if one.sign(webhook_id, sent_at, arrival.body) in signatures
            ),
            skew_s=sent_at.timestamp() - arrival.began_s,
            digest=hashlib.sha256(arrival.body.encode()).hexdigest(),
            event_id=document["id"],
            type=sys.intern(document["type"]),
            account_id=sys.intern(document["account"]),
            payment_id=subject["id"],
            version=subject["version"],
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        return Received(**about, broken=f"{type(error).__name__}: {error}")
