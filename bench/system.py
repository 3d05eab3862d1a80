"""The system that is measured: real servers and processes in a temporary folder.

Postgres with fsync, Redis with its append-only file, a provider, and whichever API and workers are to be compared. Every
contender gets a database and a stream of its own, so that none works on what another left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
import redis
from psycopg import sql

from okane.local.okane_process import OkaneProcess, answers_http
from okane.local.ports import LOOPBACK, free_port
from okane.local.postgres import PostgresServer
from okane.local.redis_server import RedisServer
from okane.store.schema import migrate

READY_S = 60.0
_PYTHON = (sys.executable, "-P", "-m")  # -P: a folder named bench where the command was given is not ours
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """An API and a worker program, both configured by the settings of okane."""

    name: str
    api: Sequence[str]
    worker: Sequence[str]


OKANE = Contender(name="okane", api=("okane", "api"), worker=("okane", "worker"))
TEXTBOOK = Contender(name="textbook", api=("bench.textbook.api",), worker=("bench.textbook.worker",))
BARE = Contender(name="bare handler", api=("bench.bare.api",), worker=())


class System:
    """The servers. `running` brings them up; `deployed` puts a contender on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        logs = folder / "logs"
        self.postgres = PostgresServer(folder=folder / "postgres", log=logs / "postgres.log", port=free_port())
        self.redis = RedisServer(folder=folder / "redis", log=logs / "redis.log", port=free_port())

    def stop(self) -> None:
        self.redis.stop()
        self.postgres.stop()

    def new_database(self) -> str:
        """The address of an empty database with the schema."""
        url = self.empty_database()
        asyncio.run(migrate(url))
        return url

    def empty_database(self) -> str:
        """The address of a database without a schema."""
        name = f"bench_{next(_numbers)}"
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.postgres.database_url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database and whatever is still connected to it."""
        name = sql.Identifier(url.rpartition("/")[2])
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))

    def redis_client(self) -> redis.Redis:
        return redis.Redis.from_url(self.redis.url, socket_timeout=60)


@contextlib.contextmanager
def running(*, core_for_redis: bool = False) -> Iterator[System]:
    """A system with its servers up inside the block; nothing of it is left after it.

    `core_for_redis` keeps everything else that is started in the block off one core, where the machine can: what a command
    of Redis takes is then the command, and not waiting for a core.
    """
    with tempfile.TemporaryDirectory(prefix="okane-bench-") as folder:
        system = System(Path(folder))
        try:
            system.redis.start()
            with _off_one_core() if core_for_redis else contextlib.nullcontext():
                system.postgres.start()
                yield system
        finally:
            system.stop()


@contextlib.contextmanager
def _off_one_core() -> Iterator[None]:
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if len(cores) < 2:
        yield
        return
    os.sched_setaffinity(0, cores - {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


class Provider:
    """A provider, or another server that answers payments' requests, as a process."""

    def __init__(self, system: System, name: str, *program: str) -> None:
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        command = [*program, "--port", str(self.port)]
        self.process = _process(system, name, command, {}, answers_http(self.port, "/health"))

    @contextlib.contextmanager
    def running(self) -> Iterator[Provider]:
        """Up inside the block."""
        self.process.start()
        try:
            yield self
        finally:
            self.process.stop()


def provider(system: System, *, latency_ms: float = 0.0) -> contextlib.AbstractContextManager[Provider]:
    """The lean one: approves everything, after so long."""
    return Provider(system, "lean provider", "bench.provider", "--latency-ms", str(latency_ms)).running()


def receiver(system: System) -> contextlib.AbstractContextManager[Provider]:
    """The receiver of webhooks (`bench/receiver.py`)."""
    return Provider(system, "receiver", "bench.receiver").running()


def mock_provider(system: System) -> contextlib.AbstractContextManager[Provider]:
    """The product's, approving everything."""
    always = ("--unavailable", "0", "--decline", "0")
    journal = system.folder / f"journal-{next(_numbers)}.jsonl"
    return Provider(system, "mock provider", "okane", "provider", "--journal", str(journal), *always).running()


class Deployment:
    """The processes of one contender over one database and one stream."""

    def __init__(
        self,
        system: System,
        contender: Contender,
        *,
        database_url: str,
        provider_url: str,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.contender = contender
        self.database_url = database_url
        self.stream = f"bench-{secrets.token_hex(4)}"
        self.apis: list[OkaneProcess] = []
        self.workers: list[OkaneProcess] = []
        self.dispatchers: list[OkaneProcess] = []
        self.consoles: list[OkaneProcess] = []
        self.api_ports: list[int] = []
        self.metrics_ports: list[int] = []  # of the APIs
        self._system = system
        self._env = {
            "OKANE_DATABASE_URL": database_url,
            "OKANE_REDIS_URL": system.redis.url,
            "OKANE_PROVIDER_BASE_URL": provider_url,
            "OKANE_STREAM": self.stream,
            "OKANE_LOG_LEVEL": "warning",
            "OKANE_AUTH": "none",
            **(env or {}),
        }

    def start_apis(self, count: int = 1) -> None:
        """Start APIs, each on a port of its own."""
        for _ in range(count):
            port, metrics_port = free_port(), free_port()
            env = {"OKANE_PORT": str(port), "OKANE_METRICS_PORT": str(metrics_port)}
            name = f"{self.contender.name} api {len(self.apis)}"
            self.apis.append(self._launch(name, self.contender.api, env, port, "/v1/health"))
            self.api_ports.append(port)
            self.metrics_ports.append(metrics_port)
        _wait_ready(self.apis)

    def start_sharing_apis(self, count: int) -> None:
        """Start APIs that share one port, as `okane api --processes` does; the metrics show which of them is ready."""
        port = free_port()
        self.api_ports.append(port)
        for number in range(count):
            metrics_port = free_port()
            env = {"OKANE_PORT": str(port), "OKANE_SHARE_PORT": "true", "OKANE_METRICS_PORT": str(metrics_port)}
            name = f"{self.contender.name} api {number}"
            self.apis.append(self._launch(name, self.contender.api, env, metrics_port, "/healthz"))
        _wait_ready(self.apis)

    def start_workers(self, count: int = 1) -> None:
        self.launch_workers(count)
        _wait_ready(self.workers)

    def launch_workers(self, count: int = 1) -> None:
        """Start workers without waiting for them: what they do from their first moment on is to be measured."""
        for _ in range(count):
            port = free_port()
            number = len(self.workers)
            program = [*self.contender.worker, "--name", f"worker-{number}"]
            env = {"OKANE_METRICS_PORT": str(port)}
            name = f"{self.contender.name} worker {number}"
            self.workers.append(self._launch(name, program, env, port, "/healthz"))

    def start_dispatcher(self) -> None:
        """Start a process that delivers webhooks. Only okane has one."""
        port = free_port()
        name = f"{self.contender.name} dispatcher {len(self.dispatchers)}"
        env = {"OKANE_METRICS_PORT": str(port)}
        self.dispatchers.append(self._launch(name, ("okane", "dispatch"), env, port, "/healthz"))
        _wait_ready(self.dispatchers)

    def start_console(self) -> int:
        """Start a process that serves the console to holders of API keys; return its port. Only okane has one."""
        port = free_port()
        env = {"OKANE_CONSOLE_PORT": str(port), "OKANE_METRICS_PORT": str(free_port()), "OKANE_AUTH": "keys"}
        name = f"{self.contender.name} console {len(self.consoles)}"
        self.consoles.append(self._launch(name, ("okane", "console"), env, port, "/healthz"))
        _wait_ready(self.consoles)
        return port

    def check_alive(self) -> None:
        """Raise StartError if a process has died: its figures would be another's."""
        for process in (*self.apis, *self.workers, *self.dispatchers, *self.consoles):
            process.check_alive()

    def stop(self) -> None:
        for process in (*self.consoles, *self.dispatchers, *self.workers, *self.apis):
            process.stop()

    def _launch(self, name: str, program: Sequence[str], env: Mapping[str, str], port: int, path: str) -> OkaneProcess:
        process = _process(self._system, name, program, {**self._env, **env}, answers_http(port, path))
        process.launch()
        return process


@contextlib.contextmanager
def deployed(
    system: System, contender: Contender, *, database_url: str, provider_url: str, env: Mapping[str, str] | None = None
) -> Iterator[Deployment]:
    """A contender with nothing started yet; what is started in the block is stopped after it."""
    deployment = Deployment(system, contender, database_url=database_url, provider_url=provider_url, env=env)
    try:
        yield deployment
    finally:
        deployment.stop()


def _process(
    system: System, name: str, program: Sequence[str], env: Mapping[str, str], probe: Callable[[], bool]
) -> OkaneProcess:
    module, *arguments = program
    return OkaneProcess(
        name=name,
        program=(*_PYTHON, module),
        arguments=arguments,
        env=env,
        log=system.folder / "logs" / f"{name.replace(' ', '-')}.log",
        probe=probe,
        drain_s=10,
    )


def _wait_ready(processes: Sequence[OkaneProcess]) -> None:
    deadline = time.monotonic() + READY_S
    for process in processes:
        while not process.ready():
            process.check_alive()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{process.name} was not ready after {READY_S:.0f} s.\n{process.last_lines()}")
            time.sleep(0.02)
