"""All people beside the clients, and their journals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from okane.load.client import HttpClient
from torture.history.decisions import Decision
from torture.history.journals import Request
from torture.history.methods import MethodHistory
from torture.history.routes import RouteChange
from torture.people.customers import Customers
from torture.people.operators import Operators
from torture.people.routes import RoutePlanner
from torture.system.cluster import Cluster


class People:
    """Acts until there is enough, and then answers for what it has done."""

    def __init__(self, cluster: Cluster, *, http: HttpClient, seed: int, started_s: float, patient: bool) -> None:
        """With `patient`, nothing that they do is a fault."""
        self._operators = Operators(cluster, http=http, seed=seed, patient=patient)
        self._planner = RoutePlanner(cluster, seed=seed)
        self._customers = Customers(urls=cluster.api_urls, http=http, seed=seed, started_s=started_s)

    @property
    def requests(self) -> Sequence[Request]:
        return self._customers.requests

    @property
    def decisions(self) -> Sequence[Decision]:
        return self._operators.journal

    @property
    def methods(self) -> MethodHistory:
        return self._customers.history

    @property
    def routes(self) -> Sequence[RouteChange]:
        return self._planner.journal

    async def run(self, enough: Callable[[], bool]) -> None:
        """Act until `enough`; when this returns, the last requests are answered."""
        async with asyncio.TaskGroup() as acting:
            acting.create_task(self._operators.run(enough))
            acting.create_task(self._customers.run(enough))
            acting.create_task(self._planner.run(enough))
