"""The receivers of webhooks, and the `Sender` of a dispatcher that reaches them over the network of the simulation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Final, cast
from uuid import UUID

from okane.store.webhook_endpoints import Endpoint
from okane.webhooks.payload import parse_event_id
from okane.webhooks.sender import NOT_BEGUN, Answer, Outcome, Sender
from tests.simulation.loop import current_process
from tests.simulation.network import PENDING, Exchange, Link, Network, NoAnswer, NotSent
from tests.simulation.webhooks.audit import WebhookAudit
from tests.simulation.webhooks.tables import Tables

_LATENCY_S: Final = (0.001, 0.05)
_CONNECT_S: Final = 5.0
_SLOWLY: Final = 0.05  # of the connections take seconds
_SLOW_S: Final = 3.0
_RETRY_AFTER_S: Final = 1.0


@dataclass(slots=True)
class Mood:
    """The chances of each way to fail, for each request; the others are accepted."""

    refuse: float = 0.0
    limit: float = 0.0  # 429
    gone: float = 0.0  # 410
    slow: float = 0.0
    silent: float = 0.0  # accepted, and not answered


@dataclass(slots=True)
class Receiver:
    """The receiver of one endpoint."""

    link: Link
    mood: Mood = field(default_factory=Mood)


class Receivers:
    """All receivers of a world."""

    def __init__(self, network: Network, tables: Tables, audit: WebhookAudit, dice: Random) -> None:
        self.by_endpoint: dict[UUID, Receiver] = {}
        self.network = network
        self.tables = tables
        self.audit = audit
        self._dice = dice

    def of(self, endpoint_id: UUID) -> Receiver:
        """Return the receiver of an endpoint."""
        return self.by_endpoint.setdefault(endpoint_id, Receiver(Link(f"receiver {endpoint_id.int}")))

    def connect_s(self) -> float:
        """Draw how long a connection takes."""
        return self._dice.random() * _CONNECT_S if self._dice.random() < _SLOWLY else 0.0

    def heal(self) -> None:
        """End all faults."""
        for one in self.by_endpoint.values():
            one.link.heal()
            one.mood = Mood()

    def take(self, exchange: Exchange, endpoint_id: UUID, position: int) -> object:
        """Take a request, and answer it later."""
        mood, roll = self.of(endpoint_id).mood, self._dice.random()
        for status, chance in ((500, mood.refuse), (429, mood.limit), (410, mood.gone)):
            if roll < chance:
                self._answer(exchange, status)
                return PENDING
            roll -= chance
        self.audit.accept(endpoint_id, position)
        if roll >= mood.silent:
            self._answer(exchange, 200, after_s=self._dice.random() * _SLOW_S if roll < mood.silent + mood.slow else 0)
        return PENDING

    def _answer(self, exchange: Exchange, status: int, *, after_s: float = 0.0) -> None:
        self.network.later(after_s + self._dice.uniform(*_LATENCY_S), exchange.answer, status)


class SimulatedSender:
    """The `Sender` of one endpoint queue."""

    def __init__(self, receivers: Receivers) -> None:
        self._receivers = receivers

    async def aclose(self) -> None:
        """Nothing is open."""

    async def send(
        self, endpoint: Endpoint, event_id: str, _body: bytes, *, now: datetime, may_begin: Callable[[], bool]
    ) -> Answer:
        """Connect, which may take seconds, and send an event. The audit judges its beginning."""
        await asyncio.sleep(self._receivers.connect_s())
        if not may_begin():
            return NOT_BEGUN
        receivers, change = self._receivers, parse_event_id(event_id)
        assert change is not None
        position = receivers.tables.position_of(*change)
        flight = receivers.audit.begin(current_process(), endpoint, position)
        outcome: Outcome = "connect"
        status: int | None = None
        try:
            status = await receivers.network.call(
                receivers.of(endpoint.id).link,
                "send",
                lambda exchange: receivers.take(exchange, endpoint.id, position),
                timeout_s=endpoint.timeout_s,
                block_s=endpoint.timeout_s,
            )
            outcome = _outcome(status)
        except NotSent:
            pass
        except NoAnswer as error:
            outcome = "timeout" if error.silent else "connect"
        receivers.audit.end(endpoint.id, flight, failed=outcome != "delivered")
        return Answer(outcome, status, 1, str(status), _RETRY_AFTER_S if status == 429 else None)


def as_sender(sender: SimulatedSender) -> Sender:
    """Return the sender, typed as the real one."""
    return cast(Sender, sender)


def _outcome(status: int) -> Outcome:
    if status == 410:
        return "status_410"
    return "delivered" if status < 300 else "status_4xx" if status < 500 else "status_5xx"
