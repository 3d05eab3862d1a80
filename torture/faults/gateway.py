"""Faults of the gateway with Stripe's protocol, and of the switch of either provider."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import psycopg

from okane.errors import StoreUnavailable
from okane.store.providers import Mode, ProviderStore
from torture.faults.fault import Fault, Made, only
from torture.faults.provider import control
from torture.schedule import Step
from torture.system.cluster import Cluster
from torture.system.tally import SwitchedTime

_TRIES = 100  # a Postgres that is down comes back
_HOLD_S = (0.6, 2.0)
_PAUSE_S = 0.2
_GATEWAY = only("gateway")

T = TypeVar("T")


def _behaving(**changes: float) -> Made:
    """The gateway forgets its behaviour when it dies, so a kill ends the fault early."""

    @contextlib.asynccontextmanager
    async def made(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
        before = await control(cluster, changes, program="gateway")
        try:
            yield
        finally:
            await control(cluster, {name: before[name] for name in changes}, program="gateway")

    return made


@contextlib.asynccontextmanager
async def _switched(cluster: Cluster, step: Step) -> AsyncIterator[None]:
    """Switch a provider off, or drain it, and on again. The time between is known by Postgres' clock."""
    mode: Mode = "off" if step.roll < 0.5 else "drain"
    store = ProviderStore(cluster.database_url)
    try:
        await _insist(lambda: store.set_mode(step.target, mode, reason="torture", actor="torture"))
        since_s = await _insist(lambda: _now_s(cluster))
        try:
            yield
        finally:
            until_s = await _insist(lambda: _now_s(cluster))
            await _insist(lambda: store.set_mode(step.target, "on", reason="torture", actor="torture"))
            await _insist(store.wake_waiting)
        switched = SwitchedTime(provider=step.target, mode=mode, since_s=since_s, until_s=until_s)
        cluster.tally.switched.append(switched)
    finally:
        await store.aclose()


async def _now_s(cluster: Cluster) -> float:
    async with await psycopg.AsyncConnection.connect(cluster.database_url, connect_timeout=2) as connection:
        found = await (await connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8")).fetchone()
        assert found is not None
        return float(found[0])


async def _insist(ask: Callable[[], Awaitable[T]]) -> T:
    for attempt in range(_TRIES):
        try:
            return await ask()
        except (StoreUnavailable, psycopg.OperationalError):
            if attempt == _TRIES - 1:
                raise
            await asyncio.sleep(_PAUSE_S)
    raise AssertionError("it was tried")


GATEWAY_FAULTS = (
    Fault(
        name="provider_switched",
        meaning="an operator switches a provider off, or drains it, and on again",
        targets=lambda _shape: ("http", "stripe"),
        made=_switched,
        hold_s=(0.5, 3.0),
        weight=2,
    ),
    *(
        Fault(name=name, meaning=meaning, targets=_GATEWAY, made=made, hold_s=_HOLD_S)
        for name, meaning, made in (
            ("gateway_rate_limit", "the gateway answers 429 to most calls and does nothing", _behaving(limit=0.9)),
            ("gateway_refuses", "the gateway answers 500 and does nothing", _behaving(refuse=0.9)),
            ("gateway_saved_500", "the gateway charges and answers 500, and so to each repeat", _behaving(fail=0.9)),
            ("gateway_silent", "the gateway charges and does not answer", _behaving(silent=0.9)),
            ("gateway_notices_lost", "no notice of the gateway arrives", _behaving(lose_notice=1.0)),
            ("gateway_notices_doubled", "each notice of the gateway comes twice", _behaving(double_notice=1.0)),
            ("gateway_3d_secure", "most customers of the gateway must act", _behaving(action=0.9)),
        )
    ),
)
