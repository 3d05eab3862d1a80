"""Redis behind Sentinel, by the servers of the Compose file: they fail over, and keep their roles."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import kubernetes_validate
import pytest

from okane.local.ports import free_port
from streams.sentinel import SENTINEL_PORT, parse_sentinel_url
from tests.deploy.files import SERVICES
from tests.deploy.manifests import ALL
from tests.deploy.test_kubernetes import VERSIONS
from tests.deploy.variants import WITH_SENTINEL, RunningServers
from tests.local import waiting

wait_until = partial(waiting.wait_until, timeout_s=60)  # a failover takes 10 s, and longer on a busy machine

SERVERS, SENTINELS = ("valkey", "valkey-replica"), ("sentinel-1", "sentinel-2", "sentinel-3")


def test_the_address_names_the_sentinels_and_what_they_watch() -> None:
    parsed = parse_sentinel_url(WITH_SENTINEL.address())
    assert parsed.hosts == tuple((name, SENTINEL_PORT) for name in SENTINELS)
    assert parsed.of_primary["password"] == parsed.of_sentinels["password"] == "set-REDIS_PASSWORD"
    for name in SENTINELS:
        script = WITH_SENTINEL.service(name)["command"][-1]
        [watched] = re.findall(r"^sentinel monitor (\S+) (\S+) 6379 2$", script, re.MULTILINE)
        assert watched == (parsed.name, "valkey")


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_is_configured_as_the_plain_one(name: str) -> None:
    lines = SERVICES["valkey"]["command"][-1].splitlines()
    inside = set(lines[lines.index("exec valkey-server - <<CONFIG") + 1 :])
    assert inside <= set(WITH_SENTINEL.service(name)["command"][-1].splitlines())


@pytest.fixture
def ports() -> Mapping[str, int]:
    taken: dict[str, int] = {}
    for name in (*SERVERS, *SENTINELS):
        taken[name] = free_port(besides=taken.values())
    return taken


class BehindSentinel(RunningServers):
    """Two servers and three sentinels."""

    def rewrite(self, name: str, text: str) -> str:
        here = self.here(name)
        text = text.replace("valkey 6379", f"127.0.0.1 {self._ports['valkey']}").replace("okane 5000", "okane 2000")
        return text.replace("port 26379", here).replace("appendonly yes", f"{here}\nappendonly yes")


@pytest.fixture
def running(tmp_path: Path, ports: Mapping[str, int]) -> Iterator[RunningServers]:
    one = BehindSentinel(WITH_SENTINEL, tmp_path, ports)
    try:
        yield one
    finally:
        one.end()


@pytest.mark.timeout(400)
def test_the_servers_of_the_file_fail_over_and_keep_their_roles(
    running: RunningServers, ports: Mapping[str, int]
) -> None:
    """A server that comes back begins with the role that Sentinel gave it, not with the one of its first start."""
    first, second = SERVERS
    for name in SERVERS:
        running.start(name)
    wait_until(lambda: (running.ask(second, "ROLE") or [""] * 4)[3] == "connected")
    for name in SENTINELS:
        running.start(name)

    def knows_all(name: str) -> bool:
        state = running.ask(name, "SENTINEL MASTER", "okane") or {}
        return (state.get("num-other-sentinels"), state.get("num-slaves")) == (2, 1)

    wait_until(lambda: all(knows_all(name) for name in SENTINELS))

    def says_second(name: str) -> bool:
        return bool(running.ask(name, "SENTINEL GET-MASTER-ADDR-BY-NAME", "okane") == ("127.0.0.1", ports[second]))

    running.kill(first)
    wait_until(lambda: running.role(second) == "master" and all(map(says_second, SENTINELS)))
    running.start(first)
    wait_until(lambda: running.role(first) == "slave")
    assert all(map(says_second, SENTINELS))
    running.kill(second)
    running.start(second)
    wait_until(lambda: running.role(second) != "")
    assert running.role(second) == "master"
    wait_until(lambda: sorted(map(running.role, SERVERS)) == ["master", "slave"])


@pytest.mark.parametrize("version", VERSIONS)
def test_the_policy_allows_the_port_of_the_sentinels(version: str) -> None:
    policy = WITH_SENTINEL.patched()["NetworkPolicy", "okane"]
    kubernetes_validate.validate(policy, version, strict=True)
    *before, added = policy["spec"]["egress"]
    assert before == ALL["NetworkPolicy", "okane"]["spec"]["egress"]
    assert added == {"ports": [{"protocol": "TCP", "port": SENTINEL_PORT}]}
