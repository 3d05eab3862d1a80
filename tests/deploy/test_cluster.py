"""Redis Cluster, by the servers of the Compose file: they are joined once, fail over, and come back as what they are."""

from __future__ import annotations

import ipaddress
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest

from okane.lanes import payments_stream
from okane.local.ports import free_port
from streams import Inspector, Producer, connect
from streams.slots import SLOTS, parse_cluster_url, slot_of
from tests.deploy.files import SERVICES, loaded
from tests.deploy.variants import PASSWORD, WITH_CLUSTER, RunningServers
from tests.local import waiting

wait_until = partial(waiting.wait_until, timeout_s=60)

NODES = {"valkey" if number == 1 else f"valkey-{number}": f"172.30.83.{10 + number}" for number in range(1, 7)}
CLIENT = shutil.which("valkey-cli") or shutil.which("redis-cli")


def test_the_address_names_three_nodes_and_each_announces_its_fixed_one() -> None:
    parsed = parse_cluster_url(WITH_CLUSTER.address())
    assert parsed.hosts == tuple((address, 6379) for address in list(NODES.values())[:3])
    assert parsed.options["password"] == "set-REDIS_PASSWORD"
    [subnet] = loaded(WITH_CLUSTER.compose)["networks"]["data"]["ipam"]["config"]
    for name, address in NODES.items():
        found = WITH_CLUSTER.service(name)
        assert found["environment"]["ANNOUNCED"] == found["networks"]["data"]["ipv4_address"] == address
        assert ipaddress.ip_address(address) in ipaddress.ip_network(subnet["subnet"])
    join = WITH_CLUSTER.service("join")
    assert re.findall(r"[\d.]+(?=:6379)", join["command"][-1]) == list(NODES.values())
    assert set(join["depends_on"]) == set(NODES)


@pytest.mark.parametrize("name", NODES)
def test_a_node_is_configured_as_the_plain_server(name: str) -> None:
    lines = SERVICES["valkey"]["command"][-1].splitlines()
    assert set(lines) <= set(WITH_CLUSTER.service(name)["command"][-1].splitlines())


class Cluster(RunningServers):
    """Six nodes. Each has a second port, of the bus."""

    def __init__(self, folder: Path) -> None:
        ports: dict[str, int] = {}
        for name in [*NODES, *(f"bus of {name}" for name in NODES)]:
            ports[name] = free_port(besides=ports.values())
        super().__init__(WITH_CLUSTER, folder, ports)

    @property
    def url(self) -> str:
        return f"redis+cluster://:{quote(PASSWORD)}@" + ",".join(
            f"127.0.0.1:{self._ports[name]}" for name in list(NODES)[:3]
        )

    def rewrite(self, name: str, text: str) -> str:
        if name in NODES:
            here = f"{self.here(name)}\ncluster-port {self._ports[f'bus of {name}']}"
            text = text.replace("port 6379", here, 1).replace("node-timeout 5000", "node-timeout 2000")
        for other, address in NODES.items():
            port = self._ports[other]
            text = text.replace(f"{address}:6379", f"127.0.0.1:{port}").replace(
                f"{address} -p 6379", f"127.0.0.1 -p {port}"
            )
        return text.replace("valkey-cli", str(CLIENT))

    def join(self) -> str:
        command, environment = self.command_of("join")
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout

    def is_whole(self) -> bool:
        """Tell whether every node knows all slots, and each primary has its replica."""
        states = [str(self.ask(name, "CLUSTER", "INFO")) for name in NODES]
        roles = [self.role(name) for name in NODES]
        whole = all(re.search("(?s)cluster_state.*ok.*cluster_slots_ok.*16384", state) for state in states)
        replicas = [self.ask(name, "ROLE") for name, role in zip(NODES, roles, strict=True) if role == "slave"]
        return whole and roles.count("master") == 3 and all(one[3] == "connected" for one in replicas)

    def owner_of(self, slot: int) -> str:
        """Return the name of the primary that has a slot."""
        for name in NODES:
            for first, last, (_, port, *_), *_ in self.ask(name, "CLUSTER", "SLOTS") or ():
                if first <= slot <= last:
                    return next(one for one in NODES if self._ports[one] == port)
        raise AssertionError(slot)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    one = Cluster(tmp_path)
    try:
        yield one
    finally:
        one.end()


async def publish(cluster: Cluster) -> None:
    """Publish a message as an API does, by the address that it is given."""
    stream = payments_stream("payments")
    async with connect(cluster.url) as client:
        producer = Producer(client, stream)
        before = await Inspector(client, stream, group="workers").stats()
        await producer.publish(b"a payment", lane="low")
        after = await Inspector(client, stream, group="workers").stats()
        assert sum(lane.length for lane in after.lanes) == sum(lane.length for lane in before.lanes) + 1
        await producer.aclose()


@pytest.mark.timeout(300)
@pytest.mark.skipif(CLIENT is None, reason="needs valkey-cli or redis-cli (Debian: apt install redis-tools)")
async def test_the_nodes_of_the_file_are_joined_once_and_fail_over(cluster: Cluster) -> None:
    for name in NODES:
        cluster.start(name)
    wait_until(lambda: all(cluster.role(name) for name in NODES))
    assert f"All {SLOTS} slots covered" in cluster.join()
    wait_until(cluster.is_whole)
    assert cluster.join() == "", "a cluster that is there is left alone"
    await publish(cluster)
    slot = slot_of("{okane:payments}:low")
    lost = cluster.owner_of(slot)
    cluster.kill(lost)
    wait_until(lambda: cluster.owner_of(slot) != lost)
    promoted = cluster.owner_of(slot)
    wait_until(lambda: cluster.role(promoted) == "master")
    await publish(cluster)
    cluster.start(lost)
    wait_until(cluster.is_whole)
    assert (cluster.role(lost), cluster.role(promoted)) == ("slave", "master")
    for name in NODES:  # a restart of the machine: each finds the others where they were
        cluster.kill(name)
    for name in NODES:
        cluster.start(name)
    wait_until(cluster.is_whole)
    await publish(cluster)
