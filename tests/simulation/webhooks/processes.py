"""The processes of the simulation: the product's Dispatcher, over the model of the tables and simulated receivers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, cast
from unittest.mock import patch

from prometheus_client import CollectorRegistry

from okane.metrics import OkaneMetrics
from okane.store.webhook_queues import LeaseRules
from okane.webhooks.dispatcher import Dispatcher, DispatcherOptions
from okane.webhooks.metrics import DispatcherMetrics
from okane.webhooks.queue import EndpointQueue
from tests.simulation.network import Link, Network
from tests.simulation.postgres import Remote
from tests.simulation.webhooks.audit import WebhookAudit
from tests.simulation.webhooks.receivers import Receivers, SimulatedSender
from tests.simulation.webhooks.scenario import DELAYS_S, Scenario
from tests.simulation.webhooks.stores import RemoteEventStore, RemoteQueueStore
from tests.simulation.webhooks.tables import Tables

# Longer than the product's where only time passes: each is many steps of a run.
OPTIONS: Final = DispatcherOptions(
    sequence_every=timedelta(milliseconds=250),
    repeats_every=timedelta(milliseconds=500),
    drain=timedelta(seconds=20),
)
# One for all: what they count is not looked at.
_metrics, _own_metrics = OkaneMetrics(CollectorRegistry()), DispatcherMetrics(CollectorRegistry())


@dataclass(frozen=True, slots=True)
class Outside:
    """The servers, and the links to them, which all processes share."""

    scenario: Scenario
    network: Network
    postgres: Link
    tables: Tables
    receivers: Receivers
    audit: WebhookAudit


@contextlib.contextmanager
def simulated_parts() -> Iterator[None]:
    """Inside the block dispatchers send to simulated receivers, whose world is their guard, and retry within minutes."""
    with (
        patch("okane.webhooks.dispatcher.Sender", lambda receivers, _masters: SimulatedSender(receivers)),
        patch.dict(EndpointQueue.__init__.__kwdefaults__, {"delays_s": DELAYS_S}),
    ):
        yield


class DispatcherProcess:
    """One dispatcher process. Its name is new with every start, as the product's owner is."""

    def __init__(self, outside: Outside, *, name: str) -> None:
        self._outside = outside
        self._name = name

    async def run(self, stop: asyncio.Event) -> None:
        outside = self._outside
        remote = Remote(outside.network, outside.postgres)
        rules = LeaseRules(lease=timedelta(seconds=outside.scenario.lease_s))
        store = RemoteQueueStore(remote, outside.tables, outside.audit, owner=self._name, rules=rules)
        dispatcher = Dispatcher(
            OPTIONS,
            events=cast(Any, RemoteEventStore(remote, outside.tables)),
            store=cast(Any, store),
            guard=cast(Any, outside.receivers),
            masters=cast(Any, None),
            metrics=_metrics,
            own_metrics=_own_metrics,
            clock=outside.network.loop.time,
        )
        await dispatcher.run(stop)
