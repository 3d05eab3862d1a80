"""The system under torture: real servers and processes on this machine, every connection of ours through a proxy of its own.

Two Redis servers, one of them idle until a failover; Postgres, perhaps with standbys; the mock provider; APIs and workers.
All of them are started again whenever they die.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from okane.errors import SetupError
from okane.local.data_folder import DataFolder
from okane.local.ports import LOOPBACK
from okane.local.postgres import PostgresServer
from okane.local.server import Server
from okane.store.partition_bounds import DAY
from okane.store.partition_conversion import convert
from okane.store.schema import WAIT as MIGRATION_WAIT
from okane.store.schema import migrate
from okane.store.table_partitions import run_locked
from torture.network.proxy import FaultProxy
from torture.options import TortureOptions
from torture.system import standbys
from torture.system.crash_points import CrashPoints
from torture.system.links import Links
from torture.system.program import Program
from torture.system.program_factory import ProgramFactory
from torture.system.provider_secrets import write_providers_file
from torture.system.redis_cluster import RedisCluster
from torture.system.sentinels import Sentinels
from torture.system.shape import OPERATORS, Shape
from torture.system.small_disk import SmallDisk
from torture.system.tally import Tally

_REDIS_DISK_MB = 192
_POSTGRES_DISK_MB = 512
_REPLICATED_DISK_MB = 1024  # with the log that is kept for the standbys
_PAYMENT_BYTES = 6_000  # on Postgres' disk: row, events, indexes, and some log
STOPPED_LEASES = 1.5  # for so many leases a process is stopped that is to lose them
DISPATCHER_STOPPED_S = 12.0  # its lease is 10 s, and no setting
_ASK_EVERY_S = 0.1  # for the Redis primary


class Cluster:
    """Everything that runs; `running` brings it up."""

    links: Links
    factory: ProgramFactory

    def __init__(self, *, options: TortureOptions, shape: Shape, folder: DataFolder, tally: Tally) -> None:
        self.options = options
        self.shape = shape
        self.folder = folder
        self.tally = tally
        self.programs: dict[str, Program] = {}
        self.points: dict[str, CrashPoints] = {}
        self.disks: dict[str, SmallDisk] = {}
        self.primary = 0  # index of the Redis server that is the primary
        self.redis_group: Sentinels | RedisCluster | None = None
        self.postgres_primary = shape.postgres[0]
        self._way_to_postgres: FaultProxy | None = (
            None  # that of this program, where another server may become the primary
        )
        self._roster = folder.roster
        self._keeping: list[asyncio.Task[None]] = []

    @property
    def database_url(self) -> str:
        """The address of the Postgres primary, also after a promotion."""
        server = self.postgres_server(self.postgres_primary)
        return server.url if self._way_to_postgres is None else _at_ports(server.url, [self._way_to_postgres.port])

    def database_url_of(self, process: str) -> str:
        """Return the address of Postgres for a process: that of its own proxies, one for each server."""
        return _at_ports(self.database_url, [self.links[f"{process}>{name}"].port for name in self.shape.postgres])

    @property
    def broker_url(self) -> str:
        """The address of all streams, which are on several nodes of a cluster."""
        return self.redis_url_of(OPERATORS) if self.shape.has_slots else self.redis_url

    @property
    def redis_url(self) -> str:
        """The port of the Redis primary."""
        return self.factory.redis_url(self.factory.port(self.redis.name))

    def redis_url_of(self, process: str) -> str:
        """Return the address of Redis for a process: that of its own proxy, or those of the sentinels, or of all nodes."""
        if self.redis_group is not None:
            return self.redis_group.url
        return self.factory.redis_url(self.links[f"{process}>redis"].port)

    @property
    def postgres(self) -> Program:
        """The Postgres primary."""
        return self.programs[self.postgres_primary]

    def postgres_server(self, name: str) -> PostgresServer:
        server = self.programs[name].server
        assert isinstance(server, PostgresServer)
        return server

    def make_primary(self, name: str) -> None:
        """Take this server of Postgres for the primary from now on. It has been promoted."""
        assert self._way_to_postgres is not None, "there are standbys"
        self.postgres_primary = name
        self._way_to_postgres.point_at((LOOPBACK, self.factory.port(name)))
        self._way_to_postgres.reset()

    @property
    def standbys(self) -> Mapping[str, PostgresServer]:
        """The servers of Postgres beside the primary, by name."""
        return {name: self.postgres_server(name) for name in self.shape.postgres if name != self.postgres_primary}

    @property
    def redis(self) -> Program:
        """The Redis primary."""
        return self.programs[f"redis-{self.primary}"]

    def program(self, target: str) -> Program:
        """Return a program by the name that faults use: `redis` and `postgres` are the primaries."""
        primaries = {"redis": self.redis, "postgres": self.postgres}
        return primaries.get(target) or self.programs[target]

    @property
    def api_urls(self) -> list[str]:
        """The addresses of the APIs for clients: those of the proxies."""
        return [f"http://{LOOPBACK}:{self.links[f'{name}>clients'].port}" for name in self.shape.apis]

    @property
    def secrets(self) -> list[str]:
        """The secrets that every process has and no log may show."""
        database_password = self.database_url.partition("@")[0].rpartition(":")[2]
        return [self.factory.redis_password, self.factory.webhook_master, database_password]

    @contextlib.asynccontextmanager
    async def running(self, *, small_disks: bool) -> AsyncIterator[None]:
        """Everything is up inside the block, and gone after it. Raises SetupError, also when something dies for good."""
        try:
            async with asyncio.TaskGroup() as tasks:
                try:
                    await self._start(tasks, small_disks=small_disks)
                    yield
                finally:
                    await self._stop()
        except (
            BaseExceptionGroup
        ) as group:  # not except*: Python 3.11.2 wraps what is raised inside it in a group again
            known = group.subgroup(SetupError)
            if known is None:
                raise
            raise known.exceptions[0] from None

    async def calm(self) -> None:
        """Heal what no fault heals by itself: no failpoint is armed any more, every link is whole, everything runs."""
        self.links.heal()
        armed = [name for name, points in self.points.items() if points.drop()]
        await asyncio.gather(*(self.programs[name].end_with(signal.SIGTERM) for name in armed))
        await asyncio.gather(*(program.ready() for program in self.programs.values()))
        if self.redis_group is not None:
            with contextlib.suppress(TimeoutError):  # then the invariants say what is wrong
                await self.redis_group.settled()

    def write_routes(self, routes: str) -> None:
        """Give the APIs other routes, in the TOML of a providers file. They take them in their own time."""
        for name in self.shape.apis:
            self._write_providers(name, routes)

    async def rescue(self) -> None:
        """Copy what is on small disks, which go with us, to where it stays. Postgres' files are as a kill -9 leaves them."""
        for name, disk in self.disks.items():
            await asyncio.to_thread(disk.rescue, self.folder.path / f"{name}-kept")

    async def _start(self, tasks: asyncio.TaskGroup, *, small_disks: bool) -> None:
        places = {name: self.folder.path / name for name in (*self.shape.postgres, "redis")}
        places |= self._mount() if small_disks else {}
        self.factory = factory = ProgramFactory(
            options=self.options, shape=self.shape, folder=self.folder, places=places
        )
        ports = {name: factory.port(name) for name in self.shape.link_targets}
        self.links = Links(self.shape, {**ports, "redis": factory.port(f"redis-{self.primary}")})
        await self.links.start()
        if self.shape.sentinels:
            self.redis_group = Sentinels(factory, self.links)
        if self.shape.has_slots:
            self.redis_group = RedisCluster(factory, self.links)
        servers = [self._server("postgres", factory.postgres(self.postgres_primary))]
        for number in self.shape.redis_servers:
            # An append-only file that was cut in its middle keeps Redis from starting (after a full disk Redis 7.0 may leave
            # such a one). It holds wake-ups only: an operator would delete it.
            settings = None if self.redis_group is None else self.redis_group.settings(number)
            servers.append(self._server("redis", factory.redis(number, settings), partial(factory.wipe_redis, number)))
        for program in servers:
            await asyncio.to_thread(program.server.prepare)
        outside = [self._new_program("provider", factory.provider), self._new_program("gateway", factory.gateway)]
        if self.shape.dispatchers:
            outside.append(self._new_program("receiver", factory.receiver))
        await self._keep(tasks, [*servers, *outside])
        if self.shape.has_standbys:
            await self._add_standbys(tasks)
        await migrate(self.database_url)
        if self.options.partitions:
            await self._convert()
        if self.redis_group is not None:
            await self._group_redis(tasks, self.redis_group)
        okane = [
            *(("api", name) for name in self.shape.apis),
            *(("worker", name) for name in self.shape.workers),
            *(("dispatcher", name) for name in self.shape.dispatchers),
        ]
        await self._keep(tasks, [self._okane(kind, name) for kind, name in okane])

    async def _add_standbys(self, tasks: asyncio.TaskGroup) -> None:
        """Start the standbys, and have commits wait for them."""
        primary = self.postgres_server(self.postgres_primary)
        await asyncio.to_thread(standbys.require_standby, primary, self.shape.postgres, reload=False)
        programs = []
        for name in self.shape.postgres[1:]:
            await asyncio.to_thread(standbys.back_up, primary, self.factory.postgres_folder(name), name=name)
            programs.append(self._server("postgres", self.factory.postgres(name)))
            await asyncio.to_thread(programs[-1].server.prepare)
        await self._keep(tasks, programs)
        await asyncio.to_thread(standbys.wait_for_followers, primary, len(programs))
        await asyncio.to_thread(standbys.reload, primary)
        self._way_to_postgres = FaultProxy((LOOPBACK, self.factory.port(primary.name)))
        await self._way_to_postgres.start()

    async def _group_redis(self, tasks: asyncio.TaskGroup, group: Sentinels | RedisCluster) -> None:
        """Start the sentinels, or form the cluster, and take from then on what they name for the primary."""
        if isinstance(group, Sentinels):
            programs = [self._server("sentinel", group.server(name)) for name in self.shape.sentinels]
            for program in programs:
                program.server.prepare()
            await self._keep(tasks, programs)
        else:
            await group.form()
        await group.settled()
        self._keeping.append(tasks.create_task(self._follow(group)))

    async def _follow(self, group: Sentinels | RedisCluster) -> None:
        while True:
            primary = await group.primary()
            if primary is not None:
                self.primary = primary
            await asyncio.sleep(_ASK_EVERY_S)

    async def _convert(self) -> None:
        """Convert the database as of a week ago: new payments are in a later part, whose keys are in the table of keys."""
        work = partial(convert, every=DAY, ahead=8 * DAY, now=datetime.now(UTC) - 7 * DAY)
        await run_locked(self.database_url, work, wait=MIGRATION_WAIT, report=lambda _line: None)

    async def _keep(self, tasks: asyncio.TaskGroup, programs: Sequence[Program]) -> None:
        for program in programs:
            self.programs[program.name] = program
            self._keeping.append(tasks.create_task(program.keep()))
        await asyncio.gather(*(program.ready() for program in programs))

    def _okane(self, kind: str, name: str) -> Program:
        """Return a process of okane, which reaches the servers through its own proxies only."""
        points = self.points[name] = CrashPoints(
            process=name,
            kind=kind,
            tally=self.tally,
            stopped_s=DISPATCHER_STOPPED_S if kind == "dispatcher" else self.options.lease_s * STOPPED_LEASES,
        )
        self._write_providers(name)
        env = {
            "OKANE_DATABASE_URL": self.database_url_of(name),
            "OKANE_REDIS_URL": self.redis_url_of(name),
            "OKANE_PROVIDERS_FILE": str(self._providers_file(name)),
        }
        builds = {"api": self.factory.api, "worker": self.factory.worker, "dispatcher": self.factory.dispatcher}
        build = builds[kind]
        return self._new_program(kind, lambda: build(name, {**env, **points.arm()}), points=points)

    def _providers_file(self, process: str) -> Path:
        return self.folder.path / f"providers-{process}.toml"

    def _write_providers(self, process: str, routes: str = "") -> None:
        ports = {
            server: self.links[f"{process}>{server}"].port
            if server in self.shape.servers_of[process]
            else self.factory.port(server)
            for server in ("provider", "gateway")
        }
        write_providers_file(
            self._providers_file(process),
            port=ports["provider"],
            gateway_port=ports["gateway"],
            env=self.options.env,
            routes=routes,
        )

    def _server(self, kind: str, server: Server, help_: Callable[[], None] | None = None) -> Program:
        """A server is prepared once and started again as it is."""
        return self._new_program(kind, lambda: server, help_=help_)

    def _new_program(
        self,
        kind: str,
        build: Callable[[], Server],
        *,
        points: CrashPoints | None = None,
        help_: Callable[[], None] | None = None,
    ) -> Program:
        return Program(kind=kind, build=build, roster=self._roster, tally=self.tally, points=points, help_=help_)

    def _mount(self) -> Mapping[str, Path]:
        """Small disks for the servers, so that they can be filled up."""
        payments_mb = self.options.expected_payments * _PAYMENT_BYTES >> 20
        postgres_mb = (_REPLICATED_DISK_MB if self.shape.has_standbys else _POSTGRES_DISK_MB) + payments_mb
        sizes_mb = dict.fromkeys(self.shape.postgres, postgres_mb)
        if not self.shape.shared_links:
            # No fault fills the disk of a cluster; sentinels have the servers write their configuration anew, with the
            # folder as only they see it.
            sizes_mb["redis"] = _REDIS_DISK_MB
        for name, size_mb in sizes_mb.items():
            log = self.folder.log(f"{name}-disk")
            self.disks[name] = disk = SmallDisk(name=name, folder=self.folder.path / name, size_mb=size_mb, log=log)
            self._roster.add(disk.mount().record)
        return {name: disk.path for name, disk in self.disks.items()}

    async def _stop(self) -> None:
        """Workers first, so that they drain into servers that are there."""
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        for ours in (True, False):
            await asyncio.gather(
                *(program.stop() for name, program in self.programs.items() if (name in self.points) is ours)
            )
        if "links" in vars(self):
            await self.links.aclose()
        if self.redis_group is not None:
            await self.redis_group.aclose()
        if self._way_to_postgres is not None:
            await self._way_to_postgres.aclose()
        for disk in self.disks.values():
            await asyncio.to_thread(disk.unmount)
        self._roster.clear()


def _at_ports(database_url: str, ports: Sequence[int]) -> str:
    """Return the address with these ports of this machine, in place of its one."""
    account, _, rest = database_url.partition("@")
    hosts = ",".join(f"{LOOPBACK}:{port}" for port in ports)
    return f"{account}@{hosts}/{rest.partition('/')[2]}"
