"""Nothing we start can be reached from another machine, unless it is told to."""

from __future__ import annotations

import asyncio
import socket
from urllib.parse import urlsplit

import aiohttp
import psutil
import pytest

from okane import binding
from okane.app.metrics_server import advertised
from okane.config import Settings
from okane.local.okane_process import answers_http
from okane.local.postgres import PostgresServer
from okane.local.redis_server import RedisServer
from tests.flow.system import System


def _listening(pid: int) -> set[str]:
    """The addresses on which this process takes connections."""
    connections = psutil.Process(pid).net_connections(kind="inet")
    return {connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN}


@pytest.mark.parametrize("name", ["api", "w1", "provider"])
async def test_our_processes_listen_on_loopback(system: System, name: str) -> None:
    if name == "provider":
        await system.start_provider()
    elif name == "api":
        await system.start_api()
    else:
        await system.start_worker(name)
    assert _listening(system.pid(name)) == {"127.0.0.1"}


def test_the_embedded_postgres_listens_on_loopback(private_postgres: PostgresServer) -> None:
    assert private_postgres.child is not None
    assert _listening(private_postgres.child.pid) == {"127.0.0.1"}


def test_the_embedded_redis_listens_on_loopback(private_redis: RedisServer) -> None:
    assert private_redis.child is not None
    assert _listening(private_redis.child.pid) == {"127.0.0.1"}


async def test_the_api_listens_elsewhere_when_it_is_told_to(system: System) -> None:
    env = {"OKANE_HOST": "127.0.0.2", "OKANE_METRICS_HOST": "127.0.0.3"}
    port = urlsplit(system.url).port
    assert port is not None
    await system._start("api", ["api"], env, answers_http(port, "/v1/health", "127.0.0.2"))
    assert _listening(system.pid("api")) == {"127.0.0.2", "127.0.0.3"}


async def test_every_server_listens_on_both_families_when_it_is_told_to(system: System) -> None:
    await system.start_provider("--host", "localhost")
    env = {"OKANE_HOST": "localhost", "OKANE_METRICS_HOST": "127.0.0.1,::1"}
    await system.start_api(**env)
    await system.start_worker("w1", **env)
    for name in ("provider", "api", "w1"):
        assert _listening(system.pid(name)) == {"127.0.0.1", "::1"}


async def test_prometheus_is_led_to_the_address_that_a_process_advertises(system: System) -> None:
    await system.start_api(OKANE_METRICS_ADVERTISE="pod-7.example")
    port = urlsplit(system.metrics_url("api")).port
    async with asyncio.timeout(30), aiohttp.ClientSession() as http:
        groups: list[dict[str, list[str]]] = []
        while not groups:  # a process says where it is after it has begun to serve
            async with http.get(f"{system.metrics_url('api')}/http_sd") as response:
                groups = await response.json()
            await asyncio.sleep(0.05)
    assert {address for group in groups for address in group["targets"]} == {f"pod-7.example:{port}"}


@pytest.mark.parametrize(
    ("bound", "advertise", "expected"),
    [
        ("127.0.0.1", None, "127.0.0.1:9101"),
        ("0.0.0.0", None, f"{socket.gethostname()}:9101"),
        ("0.0.0.0", "10.1.2.3", "10.1.2.3:9101"),
        ("::", "fd00::7", "[fd00::7]:9101"),
        ("10.1.2.3", "worker-7", "worker-7:9101"),
        ("::1", None, "[::1]:9101"),
        ("localhost", None, "127.0.0.1:9101"),
        ("127.0.0.1,10.1.2.3", None, "10.1.2.3:9101"),
        ("127.0.0.1,fd00::7", None, "[fd00::7]:9101"),
        ("127.0.0.1,::", None, f"{socket.gethostname()}:9101"),
    ],
)
def test_who_listens_everywhere_is_found_all_the_same(bound: str, advertise: str | None, expected: str) -> None:
    settings = Settings(metrics_host=bound, metrics_advertise=advertise)
    first = binding.hosts(bound)[0].replace("localhost", "127.0.0.1")
    assert advertised(settings, f"http://{binding.netloc(first, 9101)}") == expected
