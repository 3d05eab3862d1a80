"""`okane doctor` on a Redis Cluster: names the nodes, and warns of what would stop them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from okane.config import Settings
from okane.console.doctor import CheckedConsole
from okane.monitoring.cluster_checks import cluster_checks
from okane.monitoring.doctor import diagnose
from okane.monitoring.findings import Check
from streams import ClusterFacts, NodeFacts, ServerFacts
from tests.streams.cluster_nodes import ClusterNodes
from tests.streams.servers import HOST
from torture.system.cluster_nodes import PRIMARIES

SERVER = ServerFacts(
    kind="valkey",
    version="9.1",
    role="master",
    maxmemory_bytes=0,
    maxmemory_policy="noeviction",
    used_memory_bytes=1,
    appendonly=True,
    now=datetime(2026, 1, 1, tzinfo=UTC),
    sent_at=datetime(2026, 1, 1, tzinfo=UTC),
)
GOOD: dict[str, Any] = {"server": SERVER, "serves": True, "full_coverage": False}


def cluster(first: dict[str, Any], *others: NodeFacts, **second: Any) -> ClusterFacts:
    """Return a cluster of two primaries; `second` changes one of them."""
    nodes = [
        NodeFacts(**{"address": "a:1", "slots": 8_192, "replicas": ("c:3",), **GOOD, **first}),
        NodeFacts(**{"address": "b:2", "slots": 8_192, "replicas": ("d:4",), **GOOD, **second}),
    ]
    return ClusterFacts(nodes=[*nodes, *others], node_of_stream=[("okane:payments", "a:1")])


def test_a_sound_cluster_is_ok_and_its_nodes_are_named() -> None:
    checks = cluster_checks(cluster({}, NodeFacts(address="c:3", slots=0, **GOOD)))
    assert [(one.name, one.state, one.found) for one in checks] == [
        ("redis cluster", "ok", "primaries: 2, replicas: 1; okane:payments is on a:1"),
        ("redis node a:1", "ok", "primary of 8,192 slots, valkey 9.1, replicated by c:3"),
        ("redis node b:2", "ok", "primary of 8,192 slots, valkey 9.1, replicated by d:4"),
        ("redis node c:3", "ok", "replica, valkey 9.1"),
    ]


@pytest.mark.parametrize(
    ("changes", "name", "state", "found"),
    [
        ({"serves": False}, "redis cluster", "fail", "cluster_state fail by a:1"),
        ({"slots": 8_000}, "redis cluster", "fail", "192 of 16,384 slots have no node"),
        ({"replicas": ()}, "redis node a:1", "warn", "without a replica"),
        ({"server": None, "error": "refused"}, "redis node a:1", "fail", "does not answer: refused"),
        ({"server": None, "error": "NOPERM", "refused": True}, "redis node a:1", "warn", "refuses: NOPERM"),
        ({"full_coverage": True}, "redis coverage", "warn", "yes on a:1"),
        (
            {"serves": None, "full_coverage": None},
            "redis cluster",
            "ok",
            "primaries: 2",
        ),  # a managed server tells neither
    ],
)
def test_what_stops_a_cluster_is_found(changes: dict[str, Any], name: str, state: str, found: str) -> None:
    [check] = [one for one in cluster_checks(cluster(changes)) if one.name == name]
    assert check.state == state
    assert found in check.found
    assert bool(check.advice) == (state != "ok")


def test_a_replica_that_is_away_is_a_warning() -> None:
    away = NodeFacts(address="c:3", slots=0, error="refused")
    assert [one.state for one in cluster_checks(cluster({}, away)) if one.name == "redis node c:3"] == ["warn"]


async def test_the_doctor_reads_a_real_cluster(redis_cluster: ClusterNodes) -> None:
    settings = Settings(_env_file=None, stream="doctor-of-a-cluster")
    checked = CheckedConsole(settings, database="postgresql://127.0.0.1:1/x", redis=redis_cluster.url)

    async def found() -> dict[str, Check]:
        return {check.name: check for check in await diagnose(checked) if check.name.startswith("redis")}

    before = await found()
    nodes = [name for name in before if name.startswith("redis node")]
    assert len(nodes) >= 2 * PRIMARIES
    assert set(nodes) <= {f"redis node {HOST}:{node.port}" for node in redis_cluster.nodes}
    assert {before[name].state for name in ("redis cluster", *nodes)} == {"ok"}
    assert "doctor-of-a-cluster is on" in before["redis cluster"].found
    assert "redis coverage" not in before
    replica = redis_cluster.nodes[-1]
    await replica.run("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    await replica.run("CONFIG", "SET", "cluster-require-full-coverage", "yes")
    try:
        after = await found()
        assert (after["redis eviction"].state, after["redis coverage"].state) == ("fail", "warn")
        assert f"{HOST}:{replica.port}" in after["redis eviction"].found
    finally:
        await replica.run("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await replica.run("CONFIG", "SET", "cluster-require-full-coverage", "no")
