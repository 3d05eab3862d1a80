"""The manifests: valid, hardened, consistent, and KEDA reads keys that exist."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from okane.lanes import LANES, operations_stream, payments_stream
from streams import Message, Outcome, Producer, Stream, connect
from tests.deploy.files import DEPLOY, check_settings, drain_needed, loaded, pinned
from tests.deploy.manifests import (
    ALL,
    BASE,
    BUILT_IN,
    CLUSTER,
    EXAMPLE,
    KEDA,
    KUBERNETES,
    SENTINEL,
    Manifest,
    identity,
    manifests,
)
from tests.streams.running import Running, consumer, done

VERSIONS = ("1.29", "1.37")

PODS: Mapping[str, Manifest] = {
    name: ALL[kind, name]["spec"]["template"]
    for kind, name in (
        ("Deployment", "okane-api"),
        ("Deployment", "okane-worker"),
        ("Deployment", "okane-dispatcher"),
        ("Deployment", "okane-console"),
        ("Job", "okane-migrate"),
    )
}
PROCESSES = ("okane-api", "okane-worker", "okane-dispatcher", "okane-console")
SERVING = ("okane-api", "okane-console")  # those that others send requests to
SECRET = {
    "DATABASE_URL": "postgresql://x/y",
    "REDIS_URL": "redis://x",
    "OKANE_WEBHOOK_MASTER": "x" * 32,
    "OKANE_CONSOLE_SECRET": "x" * 32,
}


def container(name: str) -> Manifest:
    [only] = PODS[name]["spec"]["containers"]
    return only  # type: ignore[no-any-return]  # YAML is untyped


def grace(name: str) -> timedelta:
    return timedelta(seconds=PODS[name]["spec"]["terminationGracePeriodSeconds"])


@pytest.mark.parametrize("known", BUILT_IN, ids="/".join)
@pytest.mark.parametrize("version", VERSIONS)
def test_it_is_valid(known: tuple[str, str], version: str) -> None:
    kubernetes_validate.validate(BUILT_IN[known], version, strict=True)


def test_an_unknown_field_is_found() -> None:
    wrong = yaml.safe_load(yaml.safe_dump(ALL["Deployment", "okane-api"]))
    wrong["spec"]["template"]["spec"]["containers"][0]["readonlyRootFilesystem"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_every_kind_of_manifest_is_there() -> None:
    assert Counter(kind for kind, _ in ALL) == {
        "ConfigMap": 1,
        "Deployment": 4,
        "Job": 1,
        "Namespace": 1,
        "NetworkPolicy": 6,
        "PodDisruptionBudget": 4,
        "ScaledObject": 1,
        "Service": 3,
        "TriggerAuthentication": 1,
    }
    assert sum(1 for _ in manifests(BASE, KEDA, EXAMPLE)) == len(ALL)


def test_no_file_is_forgotten() -> None:
    overlays = [path.parent for path in EXAMPLE.parent.glob("*/kustomization.yaml")]
    for folder in (BASE, KEDA, SENTINEL, CLUSTER, *overlays):
        listing = loaded(folder / "kustomization.yaml")
        patches = [patch["path"] for patch in listing.get("patches", [])]
        files = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
        assert files == {name for name in listing.get("resources", []) if name.endswith(".yaml")} | set(patches)
        assert all((folder / path).is_dir() for path in listing.get("components", []))


@pytest.mark.parametrize("folder", [KEDA, EXAMPLE], ids=lambda folder: folder.name)
def test_every_patch_has_something_to_change(folder: Path) -> None:
    for patch in loaded(folder / "kustomization.yaml")["patches"]:
        change = loaded(folder / patch["path"])
        assert ALL[identity(change)]["apiVersion"] == change["apiVersion"]


def test_there_is_no_secret_in_any_file() -> None:
    text = "\n".join(path.read_text() for path in KUBERNETES.rglob("*.yaml"))
    assert not re.search(r"^kind: Secret$|://[^@\s]*:[^@\s]*@", text, re.MULTILINE)


@pytest.mark.parametrize("name", PODS)
def test_a_pod_is_hardened(name: str) -> None:
    pod, one = PODS[name]["spec"], container(name)
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert one["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert one["resources"]["limits"]["memory"]
    assert "cpu" not in one["resources"]["limits"]
    assert pinned(one["image"])


@pytest.mark.parametrize("name", PODS)
def test_no_service_becomes_a_setting(name: str) -> None:
    """With service links, Kubernetes would set OKANE_METRICS_PORT to tcp://… for a Service of that name."""
    assert PODS[name]["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize("name", PODS)
def test_every_setting_exists_and_addresses_and_the_master_come_from_the_secret(name: str) -> None:
    config = ALL["ConfigMap", "okane"]["data"] if "envFrom" in container(name) else {}
    given = {entry["name"]: entry["valueFrom"] for entry in container(name)["env"]}
    settings = check_settings({**config, **{key: SECRET.get(key, "x") for key in given}})
    assert {key for key, source in given.items() if "secretKeyRef" in source} == given.keys() & SECRET.keys()
    assert all(source["secretKeyRef"]["name"] == "okane" for source in given.values() if "secretKeyRef" in source)
    if name in PROCESSES:
        assert container(name)["envFrom"] == [{"configMapRef": {"name": "okane"}}]
        assert given["OKANE_METRICS_ADVERTISE"] == {"fieldRef": {"fieldPath": "status.podIP"}}
        assert {"name": "metrics", "containerPort": settings.metrics_port} in container(name)["ports"]
        assert settings.metrics_host == settings.host == settings.console_host == "::"


def test_the_secret_of_sessions_is_given_to_the_console_alone() -> None:
    having = {name for name in PODS if any(one["name"] == "OKANE_CONSOLE_SECRET" for one in container(name)["env"])}
    assert having == {"okane-console"}


def test_the_examples_settings_exist() -> None:
    check_settings(loaded(EXAMPLE / "settings.yaml")["data"])


@pytest.mark.parametrize("name", PROCESSES)
def test_a_stop_leaves_time_to_drain(name: str) -> None:
    assert "lifecycle" not in container(name)  # a pause before SIGTERM would not be in drain_needed
    assert grace(name) >= drain_needed(check_settings({}))


def test_an_api_is_out_of_every_service_before_it_stops_listening() -> None:
    assert check_settings({}).lame_duck >= timedelta(seconds=5)


def test_probes_use_routes_and_ports_that_exist() -> None:
    ports = {name: {port["name"] for port in container(name)["ports"]} for name in PROCESSES}
    for name in PROCESSES:
        for kind in ("startupProbe", "livenessProbe"):
            assert container(name)[kind]["httpGet"] == {"path": "/healthz", "port": "metrics"}
        assert "metrics" in ports[name]
    assert container("okane-api")["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert container("okane-console")["readinessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert {name for name in PROCESSES if "http" in ports[name]} == set(SERVING)


def test_names_and_labels_agree() -> None:
    labels = {name: template["metadata"]["labels"] for name, template in PODS.items()}

    def chosen(selector: Mapping[str, str]) -> set[str]:
        return {name for name in labels if selector.items() <= labels[name].items()}

    for name in PROCESSES:
        assert chosen(ALL["Deployment", name]["spec"]["selector"]["matchLabels"]) == {name}
        assert chosen(ALL["PodDisruptionBudget", name]["spec"]["selector"]["matchLabels"]) == {name}
        for constraint in PODS[name]["spec"]["topologySpreadConstraints"]:
            assert chosen(constraint["labelSelector"]["matchLabels"]) == {name}
        assert chosen(ALL["NetworkPolicy", name]["spec"]["podSelector"]["matchLabels"]) == {name}
    assert chosen(ALL["NetworkPolicy", "okane-migrate"]["spec"]["podSelector"]["matchLabels"]) == {"okane-migrate"}
    everywhere = ALL["NetworkPolicy", "okane"]["spec"]["podSelector"]
    assert chosen(everywhere["matchLabels"]) == set(PODS)
    key = "app.kubernetes.io/component"
    assert everywhere["matchExpressions"] == [
        {"key": key, "operator": "NotIn", "values": [labels["okane-migrate"][key]]}
    ]
    for name in SERVING:
        assert chosen(ALL["Service", name]["spec"]["selector"]) == {name}
    assert chosen(ALL["Service", "okane-metrics"]["spec"]["selector"]) == set(PODS)
    for name in (*SERVING, "okane-metrics"):
        [port] = ALL["Service", name]["spec"]["ports"]
        assert port["targetPort"] in {"http", "metrics"}
        assert ALL["Service", name]["spec"]["type"] == "ClusterIP"


def test_network_policies_allow_the_needed_ports_only() -> None:
    everywhere = ALL["NetworkPolicy", "okane"]["spec"]
    assert everywhere["policyTypes"] == ["Ingress", "Egress"]
    assert {port["port"] for rule in everywhere["ingress"] for port in rule["ports"]} == {9101}
    assert {port["port"] for rule in everywhere["egress"] for port in rule["ports"]} == {53, 9101, 5432, 6379}
    clients, listening = [], {"okane-api": check_settings({}).port, "okane-console": check_settings({}).console_port}
    for name in SERVING:
        [requests] = ALL["NetworkPolicy", name]["spec"]["ingress"]
        [served] = [port["containerPort"] for port in container(name)["ports"] if port["name"] == "http"]
        assert [port["port"] for port in requests["ports"]] == [served] == [listening[name]]
        assert requests["from"]
        clients.append(requests["from"])
    assert clients[0] != clients[1]  # a client of the API need not reach the console
    for name in ("okane-worker", "okane-dispatcher"):
        policy = ALL["NetworkPolicy", name]["spec"]
        assert (policy["policyTypes"], "ingress" in policy) == (["Egress"], False)
    migration = ALL["NetworkPolicy", "okane-migrate"]["spec"]
    assert (migration["policyTypes"], "ingress" in migration) == (["Ingress", "Egress"], False)
    assert {port["port"] for rule in migration["egress"] for port in rule["ports"]} == {53, 5432}


def test_keda_reads_lag_and_pending_of_every_lane() -> None:
    settings = check_settings({})
    spec = ALL["ScaledObject", "okane-worker"]["spec"]
    assert spec["scaleTargetRef"]["name"] in PODS
    assert spec["minReplicaCount"] >= 1  # workers also send due retries
    [auth] = {trigger["authenticationRef"]["name"] for trigger in spec["triggers"]}
    secrets = ALL["TriggerAuthentication", auth]["spec"]["secretTargetRef"]
    assert {secret["parameter"] for secret in secrets} == {"address", "username", "password", "tls"}
    [block] = re.findall(r"^```\n([^`]*REDIS_ADDRESS=[^`]*)^```", (DEPLOY / "README.md").read_text(), re.MULTILINE)
    made = set(re.findall(r"--from-literal=(\w+)=", block))
    assert {secret["key"] for secret in secrets} == made - SECRET.keys()
    places = dict.fromkeys(payments_stream(settings.stream).lane_keys, settings.concurrency)
    operations = operations_stream(settings.operations_stream_name)
    places |= dict.fromkeys(operations.lane_keys, settings.operations_concurrency)
    counts: dict[str, set[str]] = {}
    for trigger in spec["triggers"]:
        metadata = trigger["metadata"]
        assert trigger["type"] == "redis-streams"
        assert metadata["consumerGroup"] == settings.group
        [count] = metadata.keys() & {"lagCount", "pendingEntriesCount"}  # given both, KEDA would use the lag alone
        counts.setdefault(metadata["stream"], set()).add(count)
        assert count == "lagCount" or int(metadata[count]) < places[metadata["stream"]]
    assert counts == {key: {"lagCount", "pendingEntriesCount"} for key in places}


def test_only_keda_sets_the_number_of_workers() -> None:
    assert loaded(KEDA / "worker.yaml")["spec"] == {"replicas": None}


async def test_keda_reads_lag_and_pending_entries_as_they_are(redis_url: str) -> None:
    """Both stay right after entries were acked, which deletes them."""
    client, stream = connect(redis_url), Stream("keda", lanes=LANES)
    key, finish = stream.lane_key("critical"), asyncio.Event()

    async def held(message: Message) -> Outcome:
        await finish.wait()
        return await done(message)

    async def read() -> tuple[int | None, int]:
        [group] = await client.xinfo_groups(key)
        return group["lag"], (await client.xpending(key, "workers"))["pending"]

    async def publish(count: int) -> None:
        for _ in range(count):
            await producer.publish(b"x", lane="critical")

    producer = Producer(client, stream)
    async with Running(consumer(client, stream, done)), asyncio.timeout(60):
        await publish(5)
        while await client.xlen(key):
            await asyncio.sleep(0.01)
        assert await read() == (0, 0)
    await publish(7)
    assert await read() == (7, 0)
    async with Running(consumer(client, stream, held, concurrency=3)), asyncio.timeout(60):
        while await read() != (4, 3):
            await asyncio.sleep(0.01)
        finish.set()
        while await client.xlen(key):
            await asyncio.sleep(0.01)
        assert await read() == (0, 0)
    await client.aclose()
