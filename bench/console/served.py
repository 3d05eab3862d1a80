"""A console beside an API and workers, as a deployment has it, with a key that may see every page."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import psycopg

from bench import database, flow
from bench.console.options import ConsoleBenchOptions
from bench.console.visitor import BASE, Visitor, visiting
from bench.system import OKANE, Deployment, Provider, System, deployed
from okane.api_key import ACCOUNT, Mode, NewKey, Scope
from okane.store import ApiKeyStore

_FILLED = 10_000  # payments that are there before: no table of ours is empty for long
_NEWEST = "SELECT id::text FROM payments WHERE account_id = %s ORDER BY account_id DESC, id DESC LIMIT %s"


@dataclass(frozen=True, slots=True)
class ServedConsole:
    """The processes, and the port and the key of their console."""

    system: System
    deployment: Deployment
    port: int
    secret: str

    @property
    def pids(self) -> Mapping[str, Sequence[int]]:
        """The processes whose CPU the console costs."""
        [console] = self.deployment.consoles
        assert console.child is not None
        assert self.system.postgres.child is not None
        assert self.system.redis.child is not None
        return {
            "console": [console.child.pid],
            "Postgres": [self.system.postgres.child.pid],
            "Redis": [self.system.redis.child.pid],
        }

    def newest(self, count: int) -> list[str]:
        """Return the ids of the newest payments."""
        with psycopg.connect(self.deployment.database_url) as connection:
            return [row[0] for row in connection.execute(_NEWEST, (ACCOUNT, count))]

    def paths(self, count: int = 1) -> Mapping[str, Sequence[str]]:
        """Return the addresses of each kind of page with a target, so many of those that differ."""
        payments = [f"{BASE}/payments/{one}" for one in self.newest(count)]
        return {"overview": [f"{BASE}/"], "list": [f"{BASE}/payments"], "payment": payments}

    def visiting(self) -> contextlib.AbstractContextManager[Visitor]:
        """A visitor with a session."""
        return visiting(self.port, self.secret)


@contextlib.contextmanager
def served(
    system: System, provider: Provider, options: ConsoleBenchOptions, *, database_url: str = ""
) -> Iterator[ServedConsole]:
    """An API, workers and a console that have settled some payments; without `database_url`, over a database of their own."""
    url = database_url or system.new_database()
    if not database_url:
        database.fill(url, 1_000 if options.quick else _FILLED)
    with deployed(system, OKANE, database_url=url, provider_url=provider.url) as deployment:
        deployment.start_apis()
        deployment.start_workers(options.workers)
        flow.warm_up(deployment)
        port = deployment.start_console()
        yield ServedConsole(system, deployment, port, _new_key(url))
    if not database_url:
        system.drop_database(url)


def _new_key(database_url: str) -> str:
    """Return the secret of a new key with every scope."""
    new = NewKey.make(Mode.TEST)

    async def create() -> None:
        store = ApiKeyStore(database_url)
        await store.create(new, account_id=ACCOUNT, mode=Mode.TEST, scopes=tuple(Scope))
        await store.aclose()

    asyncio.run(create())
    return new.secret
