"""Derive a picture from two observations: the state at the second, the rates between them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from okane.lanes import operations_stream, payments_stream
from okane.monitoring import operation_summary
from okane.monitoring.observation import Observation
from okane.monitoring.operation_summary import OperationCounts
from okane.monitoring.samples import SampleDelta, delta, total
from okane.monitoring.webhook_summary import in_trouble, line, to_json
from okane.payment import Status
from okane.redis.presence import PresentProcess
from okane.store.providers import ProviderState
from okane.store.webhook_overview import WebhookOverview
from streams import StreamStats

_REQUESTS = "okane_webhook_requests_total"
_OPERATIONS_SETTLED = "okane_operations_settled_total"
_IN_HAND = {"worker": "okane_in_flight_messages", "dispatcher": "okane_webhook_in_flight"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneRow:
    """One lane: its depth and its rates."""

    lane: str
    waiting: int | None
    pending: int | None
    oldest_s: float | None
    published_per_s: float
    settled_per_s: float
    wait_p99_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRow:
    """One process, or a consumer whose process is gone."""

    name: str
    role: str
    state: str  # up, silent, gone
    in_hand: int | None
    pending: int | None
    idle_s: float | None
    settled_per_s: float | None
    cpu: float | None  # cores


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderRow:
    """One provider that is not simply on: its mode, the rest of its opening for all workers, and the workers whose own
    circuit breaker is open."""

    name: str
    mode: str
    open_s: float
    workers_open: int
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRow:
    """Events and endpoints; `delivered_per_s` of all dispatchers."""

    overview: WebhookOverview
    delivered_per_s: float

    @property
    def in_trouble(self) -> bool:
        return in_trouble(self.overview)

    def text(self) -> str:
        """Return the row as one line."""
        return line(self.overview, delivered_per_s=self.delivered_per_s)

    def to_json(self) -> dict[str, Any]:
        """Return everything, as `--json` prints it."""
        return {"delivered_per_s": self.delivered_per_s, **to_json(self.overview)}


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationsRow:
    """Captures, voids and refunds: their lanes, the messages of their stream that wait for a time, and their counts.
    `is_used`: there are some, or a running worker has settled one."""

    lanes: Sequence[LaneRow]
    delayed: int | None
    counts: OperationCounts | None
    settled_per_s: float
    is_used: bool

    @property
    def in_trouble(self) -> bool:
        return self.counts is not None and self.counts.in_trouble

    def text(self) -> str:
        """Return the row as one line."""
        return operation_summary.line(self.counts, delayed=self.delayed, settled_per_s=self.settled_per_s)

    def to_json(self) -> dict[str, Any]:
        """Return everything, as `--json` prints it."""
        return {
            "lanes": [asdict(lane) for lane in self.lanes],
            "delayed": self.delayed,
            "settled_per_s": self.settled_per_s,
            **operation_summary.to_json(self.counts),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """The state now, and the rates and quantiles since the observation before."""

    at: datetime
    seconds: float
    accepted_per_s: float
    settled_per_s: float
    charged_share: float | None
    accept_p50_s: float | None
    accept_p99_s: float | None
    settle_p50_s: float | None
    settle_p99_s: float | None
    call_p99_s: float | None
    retries_per_s: float
    take_overs_per_s: float
    repairs_per_s: float
    without_redis_per_s: float
    deferred_per_s: float
    delayed: int | None
    dead: int | None
    unknown: int | None
    needs_review: int | None
    requires_action: int | None
    submitted: int | None
    authorized: int | None
    oldest_due_s: float | None
    providers: Sequence[ProviderRow]
    webhooks: WebhookRow | None  # None: no endpoint was ever made, or Postgres is away
    lanes: Sequence[LaneRow]
    processes: Sequence[ProcessRow]
    operations: OperationsRow
    trouble: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """Return everything, as `--json` prints it."""
        webhooks = None if self.webhooks is None else self.webhooks.to_json()
        others = {"webhooks": webhooks, "operations": self.operations.to_json()}
        return {**asdict(replace(self, webhooks=None)), "at": self.at.isoformat(), **others}


def build_picture(before: Observation, after: Observation) -> Picture:
    """Return the state after, with the rates since before."""
    seconds = after.at_s - before.at_s
    growth = delta(before.samples, after.samples, seconds=seconds)
    stats, waiting = after.stats, after.waiting
    charged = growth.rate("okane_payments_settled_total", status="success")
    settled = charged + growth.rate("okane_payments_settled_total", status="failed_final")
    return Picture(
        at=datetime.now(UTC),
        seconds=seconds,
        accepted_per_s=growth.rate("okane_payments_accepted_total", result="created"),
        settled_per_s=settled,
        charged_share=charged / settled if settled else None,
        accept_p50_s=growth.quantile(0.5, "okane_http_request_seconds", method="POST"),
        accept_p99_s=growth.quantile(0.99, "okane_http_request_seconds", method="POST"),
        settle_p50_s=growth.quantile(0.5, "okane_payment_settle_seconds"),
        settle_p99_s=growth.quantile(0.99, "okane_payment_settle_seconds"),
        call_p99_s=growth.quantile(0.99, "okane_provider_call_seconds"),
        retries_per_s=growth.rate("okane_payment_retries_total"),
        take_overs_per_s=growth.rate("okane_messages_reclaimed_total"),
        repairs_per_s=growth.rate("okane_sweep_repairs_total"),
        without_redis_per_s=growth.rate("okane_direct_runs_total"),
        deferred_per_s=growth.rate("okane_provider_deferred_total"),
        delayed=None if stats is None else stats.delayed,
        dead=after.dead,
        unknown=None if waiting is None else waiting.get(Status.UNKNOWN, 0),
        needs_review=None if waiting is None else waiting.get(Status.NEEDS_REVIEW, 0),
        requires_action=None if waiting is None else waiting.get(Status.REQUIRES_ACTION, 0),
        submitted=None if waiting is None else waiting.get(Status.SUBMITTED, 0),
        authorized=None if waiting is None else waiting.get(Status.AUTHORIZED, 0),
        oldest_due_s=None if after.oldest_due is None else after.oldest_due.total_seconds(),
        providers=_providers(after),
        webhooks=_webhooks(after, growth),
        lanes=_lanes(payments_stream("any").lane_names, stats, growth),
        processes=_processes(before, after),
        operations=_operations(after, growth),
        trouble=after.trouble,
    )


def _providers(after: Observation) -> list[ProviderRow]:
    """Return the providers that an operator has switched, or that some worker cannot reach."""
    open_here: Counter[str] = Counter()
    for samples in after.samples.values():
        for (name, labels), value in (samples or {}).items():
            if name == "okane_provider_circuit_open" and value:
                open_here[dict(labels)["provider"]] += 1
    rows = {one.name: one for one in after.providers}
    found = (rows.get(name, ProviderState(name)) for name in sorted(rows.keys() | open_here.keys()))
    return [
        ProviderRow(
            name=one.name,
            mode=one.mode,
            open_s=one.open_s,
            workers_open=open_here[one.name],
            reason=None if one.mode == "on" else one.reason,
        )
        for one in found
        if one.mode != "on" or one.open_s or open_here[one.name]
    ]


def _webhooks(after: Observation, growth: SampleDelta) -> WebhookRow | None:
    if after.webhooks is None or not after.webhooks.used:
        return None
    return WebhookRow(overview=after.webhooks, delivered_per_s=growth.rate(_REQUESTS, outcome="delivered"))


def _operations(after: Observation, growth: SampleDelta) -> OperationsRow:
    stats, counts = after.operation_stats, after.operations
    lanes = _lanes(operations_stream("any").lane_names, stats, growth)
    settled = sum(total(one, _OPERATIONS_SETTLED) for one in after.samples.values() if one is not None)
    waiting = stats is not None and (bool(stats.delayed) or any(lane.length for lane in stats.lanes))
    return OperationsRow(
        lanes=lanes,
        delayed=None if stats is None else stats.delayed,
        counts=counts,
        settled_per_s=growth.rate(_OPERATIONS_SETTLED, status="success")
        + growth.rate(_OPERATIONS_SETTLED, status="failed_final"),
        is_used=bool(settled) or waiting or (counts is not None and bool(counts.dead or counts.waiting)),
    )


def _lanes(names: Sequence[str], stats: StreamStats | None, growth: SampleDelta) -> list[LaneRow]:
    found = {} if stats is None else {lane.lane: lane for lane in stats.lanes}
    now_ms = 0 if stats is None else stats.now_ms
    lanes = []
    for name in names:
        lane = found.get(name)
        lanes.append(
            LaneRow(
                lane=name,
                waiting=None if lane is None else lane.depth,
                pending=None if lane is None else lane.pending,
                oldest_s=None if lane is None or lane.oldest_ms is None else max(0, now_ms - lane.oldest_ms) / 1000,
                published_per_s=growth.rate("okane_messages_published_total", lane=name),
                settled_per_s=growth.rate("okane_messages_settled_total", lane=name),
                wait_p99_s=growth.quantile(0.99, "okane_message_wait_seconds", lane=name),
            )
        )
    return lanes


def _processes(before: Observation, after: Observation) -> list[ProcessRow]:
    """Return the rows: silent and gone ones first, then by CPU."""
    held: dict[str, tuple[int, int]] = {}
    streams = (one for one in (after.stats, after.operation_stats) if one is not None)
    for each in (one for stats in streams for one in stats.consumers):
        pending, idle_ms = held.get(each.name, (0, each.idle_ms))
        held[each.name] = (pending + each.pending, min(idle_ms, each.idle_ms))
    found = [_process(one, before, after, held) for one in after.processes]
    announced = {one.name for one in after.processes}
    found += [
        ProcessRow(
            name=name,
            role="worker",
            state="gone",
            in_hand=None,
            pending=pending,
            idle_s=idle_ms / 1000,
            settled_per_s=None,
            cpu=None,
        )
        for name, (pending, idle_ms) in held.items()
        if name not in announced and pending
    ]
    return sorted(found, key=lambda one: (one.state == "up", one.role, -(one.cpu or 0), one.name))


def _process(
    one: PresentProcess, before: Observation, after: Observation, held: Mapping[str, tuple[int, int]]
) -> ProcessRow:
    pending, idle_ms = held.get(one.name, (None, None)) if one.role == "worker" else (None, None)
    samples, was = after.samples.get(one.address), before.samples.get(one.address)
    rates = None
    if samples is not None and was is not None:
        rates = SampleDelta(before=[was], after=[samples], seconds=after.at_s - before.at_s)
    return ProcessRow(
        name=one.name,
        role=one.role,
        state="silent" if samples is None else "up",
        in_hand=None if samples is None or one.role not in _IN_HAND else int(total(samples, _IN_HAND[one.role])),
        pending=pending,
        idle_s=None if idle_ms is None else idle_ms / 1000,
        settled_per_s=None if rates is None else _out(one.role, rates),
        cpu=None if rates is None else rates.rate("process_cpu_seconds_total"),
    )


def _out(role: str, rates: SampleDelta) -> float | None:
    """Return the messages that a worker settles, or the events that a dispatcher delivers, per second."""
    if role == "dispatcher":
        return rates.rate(_REQUESTS, outcome="delivered")
    return rates.rate("okane_messages_settled_total") if role == "worker" else None
