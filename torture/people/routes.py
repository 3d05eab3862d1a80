"""The person who changes the routes: every few seconds the providers files of the APIs get other rules."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from torture.history.routes import RouteChange, Rule, to_toml
from torture.system.cluster import Cluster

_EVERY_S = (2.0, 6.0)
_POLL_S = 0.25
_PLANS = (
    (),
    (Rule(currency="EUR", use=("stripe",)),),
    (Rule(currency="EUR", use=("http",)), Rule(currency="JPY", use=("stripe", "http"))),
    (Rule(amount_from=5_000, weights={"http": 60, "stripe": 40}), Rule(currency="USD", use=("http", "stripe"))),
    (Rule(currency="JPY", amount_from=2_000, use=("stripe", "http")), Rule(currency="EUR", use=("http", "stripe"))),
)


class RoutePlanner:
    """Changes the rules. `journal` holds the changes, the first one without rules."""

    def __init__(self, cluster: Cluster, *, seed: int) -> None:
        self.journal: list[RouteChange] = [RouteChange(time.time(), ())]
        self._cluster = cluster
        self._dice = random.Random(f"routes {seed}")

    async def run(self, enough: Callable[[], bool]) -> None:
        """Change them until `enough`. The last rules stay."""
        while not enough():
            plan = self._dice.choice(_PLANS)
            # The time first: an API may take the file before this goes on.
            self.journal.append(RouteChange(time.time(), plan))
            await asyncio.to_thread(self._cluster.write_routes, to_toml(plan))
            until_s = time.monotonic() + self._dice.uniform(*_EVERY_S)
            while time.monotonic() < until_s and not enough():  # noqa: ASYNC110 - the counters have no event to wait for
                await asyncio.sleep(_POLL_S)
