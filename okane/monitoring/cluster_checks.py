"""The checks of `okane doctor` about a Redis Cluster: its nodes, and the conditions that stop it. Pure."""

from __future__ import annotations

from okane.monitoring.findings import Check, State
from streams import ClusterFacts, NodeFacts
from streams.slots import SLOTS


def cluster_checks(facts: ClusterFacts) -> list[Check]:
    """Return a line about the cluster, one about each node, and one if the loss of a node stops the others."""
    return [_state(facts), *(_node(node) for node in facts.nodes), *_coverage(facts)]


def _state(facts: ClusterFacts) -> Check:
    primaries = sum(node.slots > 0 for node in facts.nodes)
    found = f"primaries: {primaries}, replicas: {len(facts.nodes) - primaries}"
    if failing := [node.address for node in facts.nodes if node.serves is False]:
        advice = "redis-cli CLUSTER NODES names the lost nodes; payments run straight from Postgres meanwhile"
        return Check("redis cluster", "fail", f"cluster_state fail by {', '.join(failing)}", advice)
    if facts.slots < SLOTS:
        advice = "assign them: redis-cli --cluster fix; streams in them run straight from Postgres meanwhile"
        return Check("redis cluster", "fail", f"{SLOTS - facts.slots:,} of {SLOTS:,} slots have no node", advice)
    streams = "".join(f"; {name} is on {address}" for name, address in facts.node_of_stream)
    return Check("redis cluster", "ok", found + streams)


def _node(node: NodeFacts) -> Check:
    name = f"redis node {node.address}"
    role = f"primary of {node.slots:,} slots" if node.slots else "replica"
    if node.refused:
        advice = "give its user the password and the rights of the other nodes: docs/operations.md, Rights in Redis"
        return Check(name, "warn", f"{role}, refuses: {node.error}", advice)
    if node.server is None:
        state: State = "fail" if node.slots else "warn"
        return Check(name, state, f"{role}, does not answer: {node.error}", "start it, or let a replica take its slots")
    found = f"{role}, {node.server.kind} {node.server.version}"
    if not node.slots:
        return Check(name, "ok", found)
    if not node.replicas:
        advice = "add one: if this node dies, its streams run straight from Postgres until it is back"
        return Check(name, "warn", f"{found}, without a replica", advice)
    return Check(name, "ok", f"{found}, replicated by {', '.join(node.replicas)}")


def _coverage(facts: ClusterFacts) -> list[Check]:
    full = [node.address for node in facts.nodes if node.full_coverage]
    if not full:
        return []
    advice = "CONFIG SET cluster-require-full-coverage no on each node, and in its file: the others serve on then"
    found = f"yes on {', '.join(full)}: the loss of one node's slots stops all nodes"
    return [Check("redis coverage", "warn", found, advice)]
