"""Redis behind Sentinel: the files for it differ from the plain ones in nothing else, and Compose's servers fail over."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import redis

from okane.local.ports import free_port
from okane.local.redis_server import find_binary
from streams.sentinel import SENTINEL_PORT, parse_sentinel_url
from tests.deploy.files import DEPLOY, OURS, ROOT, SERVICES, check_settings, loaded, substituted
from tests.deploy.manifests import ALL, SENTINEL, Manifest
from tests.deploy.test_kubernetes import SECRET, VERSIONS
from tests.local import waiting

COMPOSE = DEPLOY / "compose.sentinel.yaml"
CHANGES: Mapping[str, Mapping[str, Any]] = loaded(COMPOSE)["services"]
wait_until = partial(waiting.wait_until, timeout_s=60)  # a failover takes 10 s, and longer on a busy machine

SERVERS, SENTINELS = ("valkey", "valkey-replica"), ("sentinel-1", "sentinel-2", "sentinel-3")
PASSWORD = "long enough, with 'quotes'"


def service(name: str) -> dict[str, Any]:
    """Return a service as Compose merges it from both files."""
    change = dict(CHANGES[name])
    extended = change.pop("extends", {"service": name})
    found = copy.deepcopy(dict(SERVICES[extended["service"]]))
    for key, value in change.items():
        if key == "volumes":
            by_target = {volume.split(":")[1]: volume for volume in [*found["volumes"], *value]}
            found[key] = list(by_target.values())
        else:
            found[key] = {**found.get(key, {}), **value} if isinstance(value, dict) else value
    return found


def address() -> str:
    return substituted(service("worker")["environment"]["REDIS_URL"])


def test_the_compose_file_follows_the_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_our_services_differ_in_the_address_of_redis_alone() -> None:
    of_redis = {name for name in OURS if "REDIS_URL" in SERVICES[name]["environment"]}
    assert set(CHANGES) == of_redis | set(SERVERS) | set(SENTINELS)
    for name in of_redis:
        changed, plain = service(name), SERVICES[name]
        environment = {**plain["environment"], "REDIS_URL": changed["environment"]["REDIS_URL"]}
        assert changed == {**plain, "environment": environment}, name
        assert check_settings({"REDIS_URL": address()}).redis == address()


def test_the_address_names_the_sentinels_and_what_they_watch() -> None:
    parsed = parse_sentinel_url(address())
    assert parsed.hosts == tuple((name, SENTINEL_PORT) for name in SENTINELS)
    assert parsed.of_primary["password"] == parsed.of_sentinels["password"] == "set-REDIS_PASSWORD"
    for name in SENTINELS:
        [watched] = re.findall(r"^sentinel monitor (\S+) (\S+) 6379 2$", service(name)["command"][-1], re.MULTILINE)
        assert watched == (parsed.name, "valkey")


@pytest.mark.parametrize("name", [*SERVERS, *SENTINELS])
def test_a_server_is_hardened_and_configured_as_the_plain_one(name: str) -> None:
    found, plain = service(name), SERVICES["valkey"]
    same = ("image", "user", "read_only", "cap_drop", "security_opt", "restart", "networks", "pids_limit", "logging")
    assert {key: found[key] for key in same} == {key: plain[key] for key in same}
    [volume] = found["volumes"]
    assert volume == f"{name}:/data"
    assert name in {**loaded(COMPOSE)["volumes"], "valkey": {}}
    assert found["deploy"]["resources"]["limits"]["memory"]
    if name in SERVERS:
        lines = plain["command"][-1].splitlines()
        inside = set(lines[lines.index("exec valkey-server - <<CONFIG") + 1 :])
        assert inside <= set(found["command"][-1].splitlines())


@pytest.fixture
def ports() -> Mapping[str, int]:
    taken: dict[str, int] = {}
    for name in (*SERVERS, *SENTINELS):
        taken[name] = free_port(besides=taken.values())
    return taken


class Running:
    """The servers of the file, by its own commands, as processes on loopback."""

    def __init__(self, folder: Path, ports: Mapping[str, int]) -> None:
        self._folder, self._ports = folder, ports
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        shell, option, script = service(name)["command"]
        (self._folder / name).mkdir(exist_ok=True)
        environment = {key: self._local(str(value)) for key, value in service(name)["environment"].items()}
        environment |= {"REDISCLI_AUTH": PASSWORD, "ANNOUNCED": "127.0.0.1"}
        script = script.replace("$$", "$").replace("/data/", f"{self._folder / name}/")
        script = script.replace("valkey-server ", f"{find_binary().path} ").replace("okane 5000", "okane 2000")
        here = f"port {self._ports[name]}\nbind 127.0.0.1\ndir {self._folder / name}"
        script = self._local(script).replace("port 26379", here).replace("appendonly yes", f"{here}\nappendonly yes")
        self._processes[name] = subprocess.Popen([shell, option, script], env={**os.environ, **environment})

    def kill(self, name: str) -> None:
        self._processes[name].kill()
        self._processes.pop(name).wait(20)

    def end(self) -> None:
        for name in list(self._processes):
            self.kill(name)

    def ask(self, name: str, *command: str) -> Any:
        """Return the reply of a server, or None while it has none."""
        with redis.Redis(port=self._ports[name], password=PASSWORD, decode_responses=True) as client:
            try:
                return client.execute_command(*command)
            except redis.RedisError:
                return None

    def role(self, name: str) -> str:
        return str((self.ask(name, "ROLE") or [""])[0])

    def _local(self, text: str) -> str:
        return text.replace("valkey 6379", f"127.0.0.1 {self._ports['valkey']}")


@pytest.fixture
def running(tmp_path: Path, ports: Mapping[str, int]) -> Iterator[Running]:
    one = Running(tmp_path, ports)
    try:
        yield one
    finally:
        one.end()


@pytest.mark.timeout(400)
def test_the_servers_of_the_file_fail_over_and_keep_their_roles(running: Running, ports: Mapping[str, int]) -> None:
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


def patched() -> dict[tuple[str, str], Manifest]:
    """Return the manifests that the component changes, as kustomize changes them."""
    found: dict[tuple[str, str], Manifest] = {}
    for patch in loaded(SENTINEL / "kustomization.yaml")["patches"]:
        known = patch["target"]["kind"], patch["target"]["name"]
        found[known] = copy.deepcopy(ALL[known])
        for change in loaded(SENTINEL / patch["path"]):
            *way, last = change["path"].strip("/").split("/")
            place: Any = found[known]
            for part in way:
                place = place[int(part) if isinstance(place, list) else part]
            if last == "-":
                place.append(change["value"])
            else:
                assert (last in place) is (change["op"] == "replace"), change
                place[last] = change["value"]
    return found


def test_every_trigger_of_keda_asks_the_sentinels() -> None:
    plain = copy.deepcopy(ALL["ScaledObject", "okane-worker"])
    for trigger in plain["spec"]["triggers"]:
        trigger["type"] = "redis-sentinel-streams"
        trigger["metadata"]["sentinelMaster"] = parse_sentinel_url(address()).name
    assert patched()["ScaledObject", "okane-worker"] == plain


def test_kedas_parameters_are_those_of_the_documented_secret() -> None:
    [block] = re.findall(r"^```\n([^`]*REDIS_ADDRESSES[^`]*)^```", (DEPLOY / "README.md").read_text(), re.MULTILINE)
    made = set(re.findall(r"--from-literal=(\w+)=", block)) - SECRET.keys()
    secrets = patched()["TriggerAuthentication", "okane-redis"]["spec"]["secretTargetRef"]
    assert {one["key"] for one in secrets} == made
    parameters = {"addresses", "username", "password", "sentinelUsername", "sentinelPassword", "tls"}
    assert {one["parameter"] for one in secrets} == parameters


@pytest.mark.parametrize("version", VERSIONS)
def test_the_policy_allows_the_port_of_the_sentinels(version: str) -> None:
    policy = patched()["NetworkPolicy", "okane"]
    kubernetes_validate.validate(policy, version, strict=True)
    *before, added = policy["spec"]["egress"]
    assert before == ALL["NetworkPolicy", "okane"]["spec"]["egress"]
    assert added == {"ports": [{"protocol": "TCP", "port": SENTINEL_PORT}]}
