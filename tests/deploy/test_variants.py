"""The files for Redis behind Sentinel and for Redis Cluster differ from the plain ones in nothing but Redis."""

from __future__ import annotations

import copy
import re
import subprocess
import sys

import pytest

from streams.sentinel import parse_sentinel_url
from tests.deploy.files import DEPLOY, OURS, ROOT, SERVICES, check_settings, loaded
from tests.deploy.manifests import ALL
from tests.deploy.test_kubernetes import SECRET
from tests.deploy.variants import WITH_CLUSTER, WITH_SENTINEL, Variant

BOTH = pytest.mark.parametrize("variant", [WITH_SENTINEL, WITH_CLUSTER], ids=["sentinel", "cluster"])


@BOTH
def test_the_compose_file_follows_the_specification(variant: Variant) -> None:
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        str(variant.compose),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@BOTH
def test_our_services_differ_in_the_address_of_redis_alone(variant: Variant) -> None:
    of_redis = {name for name in OURS if "REDIS_URL" in SERVICES[name]["environment"]}
    assert of_redis < set(variant.changes)
    for name in of_redis:
        changed, plain = variant.service(name), SERVICES[name]
        environment = {**plain["environment"], "REDIS_URL": changed["environment"]["REDIS_URL"]}
        assert changed == {**plain, "environment": environment}, name
    assert check_settings({"REDIS_URL": variant.address()}).redis == variant.address()


@BOTH
def test_every_server_is_hardened_and_has_a_volume_of_its_own(variant: Variant) -> None:
    plain, names = SERVICES["valkey"], set(variant.changes) - set(OURS)
    for name in names:
        found = variant.service(name)
        for key in ("image", "user", "read_only", "cap_drop", "security_opt", "pids_limit", "logging"):
            assert found[key] == plain[key], (name, key)
        assert list(found["networks"]) == plain["networks"]
        assert found["deploy"]["resources"]["limits"]["memory"]
        assert found["volumes"] == [f"{name}:/data"]
    assert {"valkey", *loaded(variant.compose)["volumes"]} == names


@BOTH
def test_every_trigger_of_keda_asks_redis_where_it_is(variant: Variant) -> None:
    plain = copy.deepcopy(ALL["ScaledObject", "okane-worker"])
    for trigger in plain["spec"]["triggers"]:
        if variant is WITH_SENTINEL:
            trigger["type"] = "redis-sentinel-streams"
            trigger["metadata"]["sentinelMaster"] = parse_sentinel_url(variant.address()).name
        else:
            trigger["type"] = "redis-cluster-streams"
    assert variant.patched()["ScaledObject", "okane-worker"] == plain


@BOTH
def test_kedas_parameters_are_those_of_the_documented_secret(variant: Variant) -> None:
    name = variant.component.name
    text = (DEPLOY / "README.md").read_text()
    [block] = re.findall(rf"^```\n((?:(?!```).)*overlays/{name}\n)```", text, re.MULTILINE | re.DOTALL)
    made = set(re.findall(r"--from-literal=(\w+)=", block)) - SECRET.keys()
    secrets = variant.patched()["TriggerAuthentication", "okane-redis"]["spec"]["secretTargetRef"]
    assert {one["key"] for one in secrets} == made
    own = {"sentinelUsername", "sentinelPassword"} if variant is WITH_SENTINEL else set()
    assert {one["parameter"] for one in secrets} == {"addresses", "username", "password", "tls"} | own
