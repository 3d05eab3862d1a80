"""Several hosts in DATABASE_URL: the order in which they are tried, and their roles."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from okane.local.ports import LOOPBACK, free_port
from okane.local.postgres import PostgresServer
from okane.monitoring.host_checks import host_checks
from okane.store import hosts
from okane.store.connect import open_connection
from okane.store.server_facts import HostRole, read_host_roles
from tests.okane.pgbouncer import pooling


def listed(url: str) -> list[tuple[str, str]]:
    known = conninfo_to_dict(url)
    return list(zip(str(known["host"]).split(","), str(known["port"]).split(","), strict=True))


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port whose connections are never answered: its queue is full."""
    with socket.socket() as server:
        server.bind((LOOPBACK, 0))
        server.listen(0)
        port = server.getsockname()[1]
        waiting = []
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex((LOOPBACK, port))
            waiting.append(client)
        yield port
        for client in waiting:
            client.close()


def test_one_host_is_left_as_it_is() -> None:
    for url in ("postgresql://u:p@h/db", "postgresql:///db", "postgresql://u@/db?host=/run/postgresql"):
        assert hosts.in_order(url) == url
        assert hosts.timeout_s(url, 5) == 5


def test_all_hosts_are_kept_with_their_ports_in_an_order_of_this_process() -> None:
    url = "postgresql://u:p%40w@a:1,b:2,[::1]:3/db?target_session_attrs=read-write"
    assert sorted(listed(hosts.in_order(url))) == [("::1", "3"), ("a", "1"), ("b", "2")]
    assert hosts.in_order(url) == hosts.in_order(url)
    known = conninfo_to_dict(hosts.in_order(url))
    assert (known["password"], known["target_session_attrs"]) == ("p@w", "read-write")
    firsts = {listed(hosts.in_order(f"postgresql://a:1,b:2/db{number}"))[0] for number in range(40)}
    assert firsts == {("a", "1"), ("b", "2")}
    assert [conninfo_to_dict(one)["host"] for one in hosts.hosts_of("postgresql://a,b:2/db")] == ["a", "b"]


async def test_a_silent_host_costs_one_connection_two_seconds_and_the_next_ones_nothing(
    database_url: str, silent_port: int
) -> None:
    before, _, after = database_url.partition("@127.0.0.1:")
    url = f"{before}@127.0.0.1:{silent_port},127.0.0.1:{after}"
    hosts.in_order(url)
    hosts._orders[url] = [0, 1]  # the dice may have put the other one first
    began_s = time.monotonic()
    await (await open_connection(url, name="test")).close()
    took_s = time.monotonic() - began_s
    assert took_s >= 1.9
    assert took_s < 5
    assert hosts._orders[url] == [1, 0]


async def test_a_pooler_behind_a_silent_host_is_checked_without_asking_that_host_again(
    database_url: str, silent_port: int
) -> None:
    with pooling(database_url, "session") as pooled:
        port = conninfo_to_dict(pooled)["port"]
        url = make_conninfo(pooled, host=f"{LOOPBACK},{LOOPBACK}", port=f"{silent_port},{port}")
        hosts._orders[url] = [0, 1]
        await (await open_connection(url, name="test")).close()
    assert hosts._orders[url] == [1, 0]


async def test_the_roles_of_the_hosts_are_read(database_url: str, postgres_server: PostgresServer) -> None:
    assert await read_host_roles(database_url) == ()
    before, _, after = database_url.partition("@127.0.0.1:")
    port, nobody = after.partition("/")[0], free_port()
    found = await read_host_roles(f"{before}@127.0.0.1:{nobody},127.0.0.1:{after}?target_session_attrs=standby")
    assert [(one.host, one.role) for one in found] == [
        (f"127.0.0.1:{nobody}", "away"),
        (f"127.0.0.1:{port}", "primary"),
    ]
    assert "refused" in found[0].reason


PRIMARY = HostRole(host="a:1", role="primary", synchronous="ANY 1 (x, y)", standbys={"x": "quorum", "y": "quorum"})
STANDBY = HostRole(host="b:1", role="standby")
AWAY = HostRole(host="c:1", role="away", reason="connection refused")


@pytest.mark.parametrize(
    ("found", "states"),
    [
        pytest.param([], [], id="one host"),
        pytest.param([PRIMARY, STANDBY], ["ok", "ok"], id="all well"),
        pytest.param([PRIMARY, AWAY], ["warn", "ok"], id="one away"),
        pytest.param([STANDBY, AWAY], ["warn"], id="no primary"),
        pytest.param([PRIMARY, PRIMARY], ["fail"], id="two primaries"),
        pytest.param([HostRole(host="a:1", role="primary"), STANDBY], ["ok", "warn"], id="asynchronous"),
        pytest.param(
            [HostRole(host="a:1", role="primary", synchronous="x", standbys={"y": "async"}), STANDBY],
            ["ok", "fail"],
            id="no commit is acknowledged",
        ),
    ],
)
def test_the_doctor_says_what_would_lose_data(found: list[HostRole], states: list[str]) -> None:
    checks = host_checks(found)
    assert [check.state for check in checks] == states
    assert all(check.advice for check in checks if check.state != "ok")
