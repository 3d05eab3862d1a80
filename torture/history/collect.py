"""Collect the journals once everything is healed: answers, charges, rows, metrics and logs."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from okane.errors import StoreUnavailable
from okane.lanes import operations_stream
from okane.load.client import HttpClient
from okane.load.report import AT_REST
from okane.payment import CLOSED_UNCHARGED, Status
from okane.store import Overview
from streams import StreamError, StreamStats
from torture.history.decisions import Decision
from torture.history.disputes import are_fetched, read_disputes
from torture.history.journals import (
    History,
    LogFile,
    Observation,
    Request,
    parse_metrics,
    read_broker,
    read_charges,
    read_gateway_charges,
    read_rows,
    with_captures,
)
from torture.history.methods import MethodHistory, read_method_charges
from torture.history.operations import OperationHistory, OperationRequest, are_decided, read_gateway_moves, read_moves
from torture.history.routes import RouteChange
from torture.history.troubles import delays, stalls, troubles
from torture.history.watch import Watch
from torture.history.webhooks import Comparison, Endpoint, WebhookHistory, delivered, read_received, read_tables
from torture.system.cluster import Cluster

_POLL_S = 0.25
_OBSERVED = 2_000  # payments that are looked at through the API
_AT_ONCE = 16
_SCRAPES = 5
_TEND_S = 2.0


async def come_to_rest(
    cluster: Cluster, *, within_s: float, tend: Callable[[], Awaitable[None]] | None = None
) -> float:
    """Wait until no work is left, or time is up. Return the seconds that it took. `tend` is called now and then."""
    started_s = time.monotonic()
    tended_s = -_TEND_S
    overview = Overview(cluster.database_url)
    try:
        while time.monotonic() - started_s < within_s:
            if tend is not None and time.monotonic() - tended_s > _TEND_S:
                await tend()
                tended_s = time.monotonic()
            if await _at_rest(cluster, overview) and (tend is None or await delivered(cluster.database_url)):
                break
            await asyncio.sleep(_POLL_S)
    finally:
        await overview.aclose()
    return time.monotonic() - started_s


async def _at_rest(cluster: Cluster, overview: Overview) -> bool:
    try:
        open_ = set(await overview.count_all()) - AT_REST - {Status.AUTHORIZED}
        if open_ or CLOSED_UNCHARGED & set(await overview.count_waiting()):
            return False
        broker, operations = await _read_brokers(cluster)
    except (StoreUnavailable, StreamError):
        return False
    decided = await are_decided(cluster.database_url) and await are_fetched(
        cluster.database_url, cluster.factory.gateway_url
    )
    return is_empty(broker) and is_empty(operations) and decided


async def _read_brokers(cluster: Cluster) -> tuple[StreamStats, StreamStats]:
    """Return the state of the payments' streams and of the operations'. Raises StreamError."""
    factory = cluster.factory
    return (
        await read_broker(cluster.broker_url, stream=factory.stream),
        await read_broker(cluster.broker_url, stream=factory.operations_stream, family=operations_stream),
    )


def is_empty(broker: StreamStats) -> bool:
    """Return True if Redis holds nothing but dead letters."""
    return broker.delayed == 0 and all(lane.length == lane.pending == 0 for lane in broker.lanes)


async def collect(
    cluster: Cluster,
    *,
    requests: Sequence[Request],
    operation_requests: Sequence[OperationRequest],
    decisions: Sequence[Decision],
    methods: MethodHistory,
    routes: Sequence[RouteChange],
    canaries: Sequence[str],
    watch: Watch,
    http: HttpClient,
    started_s: float,
    waited_s: float,
    endpoints: Sequence[Endpoint] = (),
    dead_path: str | None = None,
) -> History:
    """Return the history. Raises StoreUnavailable, StreamError, OSError."""
    postgres = await read_rows(cluster.database_url)
    acknowledged = {request.payment_id: None for request in requests if request.acknowledged}
    ids = [payment_id for payment_id in acknowledged if payment_id is not None]
    moves = await asyncio.to_thread(read_moves, cluster.folder.journal)
    broker, operation_broker = await _read_brokers(cluster)
    return History(
        requests=requests,
        observations=await _observe(cluster, _spread(ids, _OBSERVED), http, started_s),
        charges=[
            *with_captures(await asyncio.to_thread(read_charges, cluster.folder.journal), moves),
            *await asyncio.to_thread(read_gateway_charges, cluster.factory.gateway_journal),
        ],
        switched=cluster.tally.switched,
        provider=watch.provider,
        rows=postgres.rows,
        events=postgres.events,
        metrics={name: await _metrics(cluster, name, http) for name in cluster.points},
        broker=broker,
        operation_broker=operation_broker,
        live_consumers=frozenset(cluster.shape.workers),
        logs={path.name: LogFile(path) for path in sorted(cluster.folder.logs.iterdir())},
        canaries=[*cluster.secrets, *canaries, *(secret.text for one in endpoints for secret in one.secrets)],
        faults=bool(cluster.tally.made),
        waited_s=waited_s,
        webhooks=await _webhooks(cluster, endpoints, dead_path) if cluster.shape.dispatchers else None,
        operations=OperationHistory(
            requests=operation_requests,
            moves=[*moves, *await asyncio.to_thread(read_gateway_moves, cluster.factory.gateway_journal)],
            rows=postgres.operations,
            events=postgres.operation_events,
        ),
        decisions=decisions,
        routes=routes,
        disputes=await read_disputes(cluster.database_url, cluster.factory.gateway_journal),
        methods=replace(methods, charges=await asyncio.to_thread(read_method_charges, cluster.factory.gateway_journal)),
    )


async def _webhooks(cluster: Cluster, endpoints: Sequence[Endpoint], dead_path: str | None) -> WebhookHistory:
    died = cluster.tally.dead_endpoint
    return WebhookHistory(
        endpoints=endpoints,
        received=await asyncio.to_thread(read_received, cluster.factory.receiver_journal, endpoints),
        tables=await read_tables(cluster.database_url),
        troubles=troubles(cluster.tally, cluster.shape),
        delays=delays(cluster.tally, cluster.shape),
        stalls=stalls(cluster.tally),
        comparison=None
        if died is None or dead_path is None
        else Comparison(alone=died[:2], beside_dead=died[1:], dead_path=dead_path),
    )


async def _observe(cluster: Cluster, ids: Sequence[str], http: HttpClient, started_s: float) -> Sequence[Observation]:
    """Return the final answers of the APIs about these payments."""
    places, urls = asyncio.Semaphore(_AT_ONCE), itertools.cycle(cluster.api_urls)

    async def look(payment_id: str) -> Observation:
        async with places:
            reply = await http.get(f"{next(urls)}/v1/payments/{payment_id}")
        return Observation.answered(reply, payment_id=payment_id, at_s=time.monotonic() - started_s)

    return await asyncio.gather(*map(look, ids))


async def _metrics(cluster: Cluster, process: str, http: HttpClient) -> Mapping[str, float]:
    """Return the metrics of a process; the first scrape may meet connections that died long ago."""
    for attempt in range(_SCRAPES):
        try:
            lines = [line.decode() async for line in http.lines(cluster.factory.metrics_url(process))]
            return parse_metrics("\n".join(lines))
        except OSError:
            if attempt == _SCRAPES - 1:
                raise
            await asyncio.sleep(_POLL_S)
    raise AssertionError("it was tried")


def _spread(ids: Sequence[str], count: int) -> Sequence[str]:
    """Return about `count` of them, from first to last."""
    return ids[:: max(1, len(ids) // count)]
