"""Real servers for the tests: one Postgres and one Redis-compatible server per pytest process, started on first use.

Each test gets a database of its own, cloned from a template, and shares the Redis server: use keys of your own there
and never FLUSHALL. Tests that kill, fill or empty a server take a private one. All die with pytest, even by kill -9.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from unittest import mock

import psycopg
import pytest
import structlog
import uvloop
from psycopg import sql

from okane.local.ports import free_port as find_free_port
from okane.local.postgres import PostgresServer
from okane.local.redis_server import RedisServer
from okane.store import partition_conversion
from okane.store.partition_bounds import DAY
from okane.store.schema import migrate
from tests.memory_folder import folder_in_memory
from tests.streams.cluster_nodes import ClusterNodes

_HERE = Path(__file__).parent
_TEMPLATE = "okane_template"


# Fixtures that start a server, and folders whose tests start processes of their own or take minutes.
_SERVERS = frozenset({"postgres_server", "redis_server", "private_postgres", "private_redis", "redis_cluster"})
_SLOW_FOLDERS = frozenset({"bench", "conformance", "contract", "faults", "flow", "interop", "local", "simulation"})


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="only the tests that need no server")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what `--quick` leaves out."""
    if not config.getoption("--quick"):
        return
    slow = [item for item in items if _is_slow(item)]
    items[:] = [item for item in items if not _is_slow(item)]
    config.hook.pytest_deselected(items=slow)


def _is_slow(item: pytest.Item) -> bool:
    folder = item.path.relative_to(_HERE).parts[0]
    return folder in _SLOW_FOLDERS or not _SERVERS.isdisjoint(getattr(item, "fixturenames", ()))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Leave the logs as they were before each test. Commands that run in this process configure them, and a logger that was
    used then would keep that for ever, out of reach of `capture_logs`."""
    configure, root = structlog.configure, logging.getLogger()
    before, context = structlog.get_config(), structlog.contextvars.get_contextvars()
    handlers, levels = root.handlers[:], {name: logging.getLogger(name).level for name in (None, "okane", "streams")}

    def configure_without_cache(**options: object) -> None:
        configure(**options | {"cache_logger_on_first_use": False})  # type: ignore[arg-type]  # those of the caller

    try:
        with mock.patch.object(structlog, "configure", configure_without_cache):
            return (yield)
    finally:
        configure(**before)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(**context)
        root.handlers[:] = handlers
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test has failed, unless it is marked `may_skip`: there a machine has what the tests need."""
    report = yield
    skipped = report.skipped and not hasattr(report, "wasxfail")
    if skipped and os.environ.get("CI") == "true" and item.get_closest_marker("may_skip") is None:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} must not be skipped in CI. {reason}"
    return report


# A hundred databases of a few megabytes: nothing here survives the run, so nothing needs to reach the disk.
_FAST = {"shared_buffers": "64MB", "autovacuum": "off", "file_copy_method": "clone"}


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The event loop that our processes run on: its transports fail in ways of their own."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def postgres_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where Postgres servers have their data: in memory, or where all files of tests are."""
    with folder_in_memory() as folder:
        yield folder or tmp_path_factory.mktemp("postgres")


@pytest.fixture(scope="session")
def postgres_server(postgres_folder: Path) -> Iterator[PostgresServer]:
    """The session's Postgres, started, without fsync. Tests take `database_url`."""
    server = _postgres(postgres_folder / "shared", durable=False)
    server.start()
    _make_log_ins_cheap(server)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def database_template(postgres_server: PostgresServer) -> str:
    """The name of a database that holds the schema and nothing else."""
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_TEMPLATE)))
    asyncio.run(_migrate(postgres_server.database_url(_TEMPLATE)))
    if parts := os.environ.get("OKANE_TEST_PARTS"):  # the tests of the store, in so many table partitions
        with psycopg.connect(postgres_server.database_url(_TEMPLATE), autocommit=True) as connection:
            partition_conversion.convert(connection, every=DAY, ahead=(int(parts) - 1) * DAY)
    return _TEMPLATE


@pytest.fixture
def new_database(postgres_server: PostgresServer, database_template: str) -> Iterator[Callable[[], str]]:
    """Makes a database with the schema and answers its address; dropped after the test."""
    names: list[str] = []

    def create() -> str:
        names.append(f"test_{next(_numbers)}")
        # A copy of files is twice as fast as Postgres's default, which writes the copy to the log.
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
        connection.execute(statement.format(sql.Identifier(names[-1]), sql.Identifier(database_template)))
        return postgres_server.database_url(names[-1])

    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        yield create
        for name in names:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


_numbers = itertools.count(1)


@pytest.fixture
def database_url(new_database: Callable[[], str]) -> str:
    """The address of this test's own database, with the schema applied."""
    return new_database()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The session's Redis-compatible server, started. Tests take `redis_url`."""
    server = _redis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The address of the shared server: use keys of your own."""
    return redis_server.url


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterNodes]:
    """The session's Redis Cluster of six nodes, started. Heal it before you leave it (`await redis_cluster.heal()`)."""
    nodes = ClusterNodes(tmp_path_factory.mktemp("cluster"))
    try:
        asyncio.run(nodes.start())
        yield nodes
    finally:
        nodes.end()


@pytest.fixture
def private_postgres(postgres_folder: Path) -> Iterator[PostgresServer]:
    """A durable server of this test's own, started, with the schema: `.url .kill() .stop() .start()`."""
    folder = postgres_folder / f"private-{next(_numbers)}"
    server = _postgres(folder, durable=True)
    server.start()
    asyncio.run(_migrate(server.url))
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def private_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of this test's own, started: `.url .kill() .stop() .start()`."""
    server = _redis(tmp_path / "private-redis")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def free_port() -> int:
    """A loopback port without a listener."""
    return find_free_port()


def _postgres(folder: Path, *, durable: bool) -> PostgresServer:
    log = folder / "logs" / "postgres.log"
    return PostgresServer(folder=folder, log=log, port=find_free_port(), durable=durable, settings=_FAST)


def _make_log_ins_cheap(server: PostgresServer) -> None:
    """Hash the password once instead of 4,096 times: both sides repeat it for each of many thousand sessions."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("SET scram_iterations = 1")
        password = sql.Literal(connection.info.password)
        connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(connection.info.user), password))


def _redis(folder: Path) -> RedisServer:
    return RedisServer(folder=folder, log=folder / "logs" / "redis.log", port=find_free_port())


async def _migrate(url: str) -> None:
    await migrate(url)
