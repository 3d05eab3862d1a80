"""The journals that are kept independently of each other, and how each is read.

The answers to clients, the provider's charges, all rows and events of Postgres, all metrics, Redis at rest and the logs.
Collected into one `History`, which the invariants judge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Self

from okane.lanes import payments_stream
from okane.load.client import Reply
from okane.operation import OperationKind
from okane.simulator.journal import Charge as JournalLine
from okane.store.history import EventRow, HistoryStore, PaymentHistory, PaymentRow
from streams import Inspector, Stream, StreamStats, connect
from torture.gateway.books import read_intents
from torture.history.decisions import Decision
from torture.history.disputes import DisputeHistory
from torture.history.methods import MethodHistory
from torture.history.operations import Move, OperationHistory
from torture.history.routes import RouteChange
from torture.history.webhooks import WebhookHistory
from torture.system.tally import SwitchedTime

__all__ = [
    "Charge",
    "EventRow",
    "History",
    "LogFile",
    "Observation",
    "PaymentHistory",
    "PaymentRow",
    "ProviderCounts",
    "Request",
    "SwitchedTime",
    "parse_metrics",
    "read_broker",
    "read_charges",
    "read_gateway_charges",
    "read_rows",
    "with_captures",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One POST of a payment and its answer, as the client saw them. Amount and currency are all that it can mean.

    `status` is the HTTP status, 0 if no complete answer came (then the rest of the answer is None). Times are seconds
    since the run started.
    """

    key: str
    amount_minor: int
    currency: str
    sent_s: float
    answered_s: float
    status: int = 0
    payment_id: str | None = None
    created: bool | None = None
    enqueued: bool | None = None

    @property
    def acknowledged(self) -> bool:
        return 200 <= self.status < 300

    @classmethod
    def answered(
        cls, reply: Reply, *, key: str, amount_minor: int, currency: str, sent_s: float, answered_s: float
    ) -> Self:
        """From what the HTTP client brought back."""
        said = reply.body or {}
        payment = said.get("payment")
        created, enqueued = said.get("created"), said.get("enqueued")
        return cls(
            key=key,
            amount_minor=amount_minor,
            currency=currency,
            sent_s=sent_s,
            answered_s=answered_s,
            status=reply.status,
            payment_id=str(payment["id"]) if isinstance(payment, Mapping) and "id" in payment else None,
            created=created if isinstance(created, bool) else None,
            enqueued=enqueued if isinstance(enqueued, bool) else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One GET of a payment: the HTTP status, and the payment of a 200."""

    payment_id: str
    at_s: float
    http_status: int
    status: str | None = None
    amount_minor: int | None = None
    currency: str | None = None

    @classmethod
    def answered(cls, reply: Reply, *, payment_id: str, at_s: float) -> Self:
        """From what the HTTP client brought back."""
        payment = (reply.body or {}).get("payment")
        if not isinstance(payment, Mapping):
            return cls(payment_id=payment_id, at_s=at_s, http_status=reply.status)
        return cls(
            payment_id=payment_id,
            at_s=at_s,
            http_status=reply.status,
            status=payment.get("status"),
            amount_minor=payment.get("amount"),
            currency=payment.get("currency"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One line of the provider's journal: the call that decided over a key.

    With `held` its money is authorized, or was, and moves with a capture. With neither it was declined.
    """

    payment_id: str
    key: str  # the provider's idempotency key
    amount_minor: int
    currency: str
    captured: bool
    at_s: float  # since the epoch, by the provider's clock
    provider: str = "http"
    held: bool = False

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """Raises ValueError or TypeError for anything but a line of the journal."""
        read = JournalLine.from_line(line)
        return cls(
            payment_id=read.payment_id,
            key=read.payment_id if read.key == read.payment_id else read.key,
            amount_minor=read.amount,
            currency=read.currency,
            captured=read.status == "captured",
            held=read.status == "authorized",
            at_s=datetime.fromisoformat(read.at).timestamp(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderCounts:
    """The counts of the provider, summed over its lives as far as they were read in time: lower bounds.

    `conflicts` are calls under a key that it knew with another payment, amount or currency.
    """

    calls: int = 0
    conflicts: int = 0

    def __add__(self, other: ProviderCounts) -> ProviderCounts:
        return ProviderCounts(calls=self.calls + other.calls, conflicts=self.conflicts + other.conflicts)

    @classmethod
    def from_summary(cls, summary: Mapping[str, object]) -> Self:
        """From the answer to `GET /journal/summary`, which counts since the provider's start."""
        return cls(calls=_count(summary, "calls"), conflicts=_count(summary, "conflicts"))


@dataclass(frozen=True, slots=True)
class LogFile:
    """The lines of one log, read from the disk each time they are gone through."""

    path: Path

    def __iter__(self) -> Iterator[str]:
        with self.path.open(encoding="utf-8", errors="replace") as file:
            yield from file


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The journals of one run, read after the faults had healed and the system had come to rest.

    `metrics` holds the samples of each process that still lives, by series (`name{label="value"}`); `logs` the lines of
    each log by its name. `live_consumers` are the names that may still belong to the group. `canaries` are the secrets
    that were given to the processes. `waited_s` is how long the system had to come to rest. What was not collected (None,
    or empty) is not judged, and the verdict says so.
    """

    requests: Sequence[Request] = ()
    observations: Sequence[Observation] = ()
    charges: Sequence[Charge] = ()
    provider: ProviderCounts = ProviderCounts()
    switched: Sequence[SwitchedTime] = ()
    rows: Mapping[str, PaymentRow] = field(default_factory=dict)
    events: Mapping[str, Sequence[EventRow]] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    broker: StreamStats | None = None
    operation_broker: StreamStats | None = None
    live_consumers: frozenset[str] = frozenset()
    logs: Mapping[str, Iterable[str]] = field(default_factory=dict)
    canaries: Sequence[str] = ()
    faults: bool = True
    waited_s: float = 0.0
    webhooks: WebhookHistory | None = None
    operations: OperationHistory = field(default_factory=OperationHistory)
    decisions: Sequence[Decision] | None = None
    methods: MethodHistory = field(default_factory=MethodHistory)
    disputes: DisputeHistory = field(default_factory=DisputeHistory)
    routes: Sequence[RouteChange] = ()

    def total(self, metric: str) -> float:
        """The sum of a metric's samples over all processes and labels."""
        return sum(
            value
            for samples in self.metrics.values()
            for series, value in samples.items()
            if series == metric or series.startswith(f"{metric}{{")
        )


def read_gateway_charges(journal: Path) -> Sequence[Charge]:
    """The gateway's journal, from its file: what has become of each PaymentIntent. One that was never tried has none."""
    return [
        Charge(
            payment_id=intent.payment_id,
            key=intent.key,
            amount_minor=intent.amount,
            currency=intent.currency.upper(),
            captured=intent.captured,
            held=intent.manual and intent.status != "requires_payment_method",
            at_s=intent.at_s,
            provider="stripe",
        )
        for intent in read_intents(journal)
    ]


async def read_rows(database_url: str) -> PaymentHistory:
    """Postgres' journal. Raises StoreUnavailable."""
    store = HistoryStore(database_url)
    try:
        return await store.read()
    finally:
        await store.aclose()


def with_captures(charges: Sequence[Charge], moves: Sequence[Move]) -> Sequence[Charge]:
    """Return the mock provider's charges, `captured` also where a capture of its own has moved the money."""
    taken = {move.payment_id for move in moves if move.moved and move.kind is OperationKind.CAPTURE}
    return [replace(one, captured=True) if one.held and one.payment_id in taken else one for one in charges]


def read_charges(journal: Path) -> Sequence[Charge]:
    """The provider's journal, from its file. A torn last line was never answered for, and is left out."""
    with journal.open("rb") as lines:
        return [Charge.from_line(line) for line in lines if line.endswith(b"\n")]


def parse_metrics(text: str) -> Mapping[str, float]:
    """The samples of one `GET /metrics`, by series."""
    samples = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {series: float(value) for series, _, value in samples}


async def read_broker(
    redis_url: str, *, stream: str, group: str = "workers", family: Callable[[str], Stream] = payments_stream
) -> StreamStats:
    """The broker's state. Raises StreamError."""
    async with connect(redis_url) as redis:
        return await Inspector(redis, family(stream), group=group).stats()


def _count(summary: Mapping[str, object], name: str) -> int:
    value = summary.get(name, 0)
    return value if isinstance(value, int) else 0
