"""Faults of webhooks: dispatchers that die or stop, receivers that fail in every way, and a transaction that stays open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

import aiohttp

from okane.errors import StoreUnavailable
from okane.store.session import Session
from torture.faults.fault import Fault, Made
from torture.faults.processes import down, killed, stopped
from torture.receiver.server import ALL, Act
from torture.schedule import Step
from torture.system.cluster import Cluster
from torture.system.shape import Shape

_TIMEOUT = aiohttp.ClientTimeout(total=2)
_TRIES = 20
_PAUSE_S = 0.1
_HOLD_S = (0.6, 2.0)
ACCEPT: Act = "accept"


async def behave(cluster: Cluster, path: str, act: Act, chance: float = 1.0) -> None:
    """Let the receiver's endpoint at `path` behave so. Waits for a receiver that has just died."""
    changes = {path: {"act": act, "chance": chance}}
    for attempt in range(_TRIES):
        await cluster.programs["receiver"].ready()
        try:
            async with aiohttp.ClientSession(timeout=_TIMEOUT) as http:
                async with http.put(f"{cluster.factory.receiver_url}/control", json=changes) as answer:
                    answer.raise_for_status()
                return
        except (aiohttp.ClientConnectionError, TimeoutError):
            if attempt == _TRIES - 1:
                raise
            await asyncio.sleep(_PAUSE_S)


def _behaving(act: Act, chance: float) -> Made:
    """The receiver forgets its behaviour when it dies, so a kill ends the fault early."""

    @contextlib.asynccontextmanager
    async def made(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
        await behave(cluster, ALL, act, chance)
        try:
            yield
        finally:
            await behave(cluster, ALL, ACCEPT)

    return made


@contextlib.asynccontextmanager
async def _transaction_open(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
    """It has an id, so every snapshot meanwhile has it in progress."""
    await cluster.postgres.ready()
    session = Session(cluster.database_url, name="torture")
    held = False
    try:
        # Ends with StoreUnavailable when Postgres is made to die meanwhile.
        with contextlib.suppress(StoreUnavailable):
            async with session.transaction() as connection:
                await connection.execute("SELECT pg_current_xact_id()")
                held = True
                yield
        if not held:
            yield
    finally:
        await session.aclose()


def _dispatchers(shape: Shape) -> tuple[str, ...]:
    return tuple(shape.dispatchers)


def _receiver(shape: Shape) -> tuple[str, ...]:
    return ("receiver",) if shape.dispatchers else ()


def _postgres(shape: Shape) -> tuple[str, ...]:
    return ("postgres",) if shape.dispatchers else ()


_ACTS: Mapping[str, tuple[Act, str]] = {
    "receiver_slow": ("slow", "the receiver takes its time"),
    "receiver_silent": ("silent", "the receiver takes requests and does not answer"),
    "receiver_refuses": ("refuse", "the receiver answers 500"),
    "receiver_limits": ("limit", "the receiver answers 429 with a Retry-After"),
    "receiver_hangs_up": ("hang_up", "the receiver hangs up without an answer"),
    "receiver_redirects": ("redirect", "the receiver answers 302"),
    "receiver_half_heads": ("half_head", "the receiver hangs up within the head of its answer"),
    "receiver_half_bodies": ("half_body", "the receiver accepts, and hangs up within the body of its answer"),
    "receiver_gone": ("gone", "the receiver answers 410, which disables the endpoint; its owner enables it again"),
}

WEBHOOK_FAULTS = (
    Fault(
        name="kill_dispatcher",
        meaning="kill -9 of a dispatcher, started again at once",
        targets=_dispatchers,
        made=killed,
        weight=3,
    ),
    Fault(
        name="stop_dispatcher",
        meaning="SIGSTOP of a dispatcher for longer than its lease; then it goes on",
        targets=_dispatchers,
        made=stopped,
        hold_s=(11.0, 14.0),
    ),
    Fault(
        name="kill_receiver",
        meaning="kill -9 of the receiver of webhooks, started again at once",
        targets=_receiver,
        made=killed,
    ),
    Fault(
        name="receiver_down",
        meaning="the receiver of webhooks is killed and stays away",
        targets=_receiver,
        made=down,
        hold_s=(0.6, 3.0),
    ),
    Fault(
        name="transaction_open",
        meaning="a transaction with an id stays open: events that were committed later must not wait for it",
        targets=_postgres,
        made=_transaction_open,
        hold_s=(1.0, 4.0),
        touches=lambda _step, _shape: ("transactions",),
    ),
    *(
        Fault(name=name, meaning=meaning, targets=_receiver, made=_behaving(act, 0.8), hold_s=_HOLD_S)
        for name, (act, meaning) in _ACTS.items()
    ),
)
