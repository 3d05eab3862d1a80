"""The shape of the system: processes, links between them and the servers, failpoints of each kind of process. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from okane.app.failpoints import all_failpoints
from torture.options import CLUSTER, SENTINEL, STANDBY, TortureOptions

_API_POINTS = ("accept.", "notice.", "operations.")
_SHARED_POINTS = ("publish.",)
_DISPATCHER_POINTS = ("webhooks.",)
OPERATORS = "operators"  # no process, but the links of the people who decide
ONE_POSTGRES = ("postgres",)
STANDBY_POSTGRES = ("postgres-0", "postgres-1", "postgres-2")
SENTINELS = ("sentinel-0", "sentinel-1", "sentinel-2")
# Where all reach a server through one proxy.
SENTINEL_LINKS = ("all>redis-0", "all>redis-1")
CLUSTER_LINKS = tuple(f"all>redis-{number}" for number in range(6))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The names of the processes, of the servers of Postgres, and of the failpoints compiled into the processes."""

    apis: Sequence[str]
    workers: Sequence[str]
    dispatchers: Sequence[str] = ()
    failpoints: Sequence[str] = ()
    postgres: Sequence[str] = ONE_POSTGRES  # the first is the primary to begin with
    sentinels: Sequence[str] = ()
    has_slots: bool = False  # Redis is a cluster

    @classmethod
    def of(cls, options: TortureOptions) -> Self:
        return cls(
            apis=tuple(f"api-{number}" for number in range(1, options.apis + 1)),
            workers=tuple(f"worker-{number}" for number in range(1, options.workers + 1)),
            dispatchers=tuple(f"dispatcher-{number}" for number in range(1, options.dispatchers + 1)),
            failpoints=tuple(
                name
                for name in sorted(all_failpoints())
                if options.dispatchers or not name.startswith(_DISPATCHER_POINTS)
            ),
            postgres=STANDBY_POSTGRES if options.postgres == STANDBY else ONE_POSTGRES,
            sentinels=SENTINELS if options.redis == SENTINEL else (),
            has_slots=options.redis == CLUSTER,
        )

    @property
    def has_standbys(self) -> bool:
        """Return True if a standby can be promoted in place of the Postgres primary."""
        return len(self.postgres) > 1

    @property
    def skewable(self) -> Sequence[str]:
        """Those whose wall clock can be shifted: one of each kind; the others run exactly as they are shipped."""
        return (self.workers[-1], self.apis[-1])

    @property
    def servers_of(self) -> Mapping[str, Sequence[str]]:
        """Return the links of each process, and of the operators: its servers, and the clients of an API."""
        servers = (*self.postgres, *(() if self.shared_links else ("redis",)))
        apis = dict.fromkeys(self.apis, ("clients", *servers))
        workers = dict.fromkeys(self.workers, (*servers, "provider", "gateway"))
        others = dict.fromkeys((*self.dispatchers, OPERATORS), servers)
        return {**apis, **workers, **others}

    @property
    def shared_links(self) -> Sequence[str]:
        """Return the links of Redis that all processes share, by the addresses that its servers announce."""
        if self.has_slots:
            return CLUSTER_LINKS
        return SENTINEL_LINKS if self.sentinels else ()

    @property
    def redis_servers(self) -> Sequence[int]:
        """Return the numbers of the servers of Redis."""
        return range(len(CLUSTER_LINKS) if self.has_slots else len(SENTINEL_LINKS))

    @property
    def link_targets(self) -> Sequence[str]:
        """Return the servers and APIs that links lead to, but that which is Redis to a link `worker-1>redis`."""
        shared = (link.partition(">")[2] for link in self.shared_links)
        return [*self.postgres, "provider", "gateway", *self.apis, *shared]

    @property
    def links(self) -> Sequence[str]:
        own = [f"{process}>{server}" for process, servers in self.servers_of.items() for server in servers]
        return [*own, *self.shared_links]

    def hosts_of(self, failpoint: str) -> Sequence[str]:
        """The processes that pass by a failpoint."""
        if failpoint.startswith(_API_POINTS):
            return self.apis
        if failpoint.startswith(_DISPATCHER_POINTS):
            return self.dispatchers
        return [*self.apis, *self.workers] if failpoint.startswith(_SHARED_POINTS) else self.workers
