"""compose.yaml: valid by the schema of the specification; also its settings, paths, ports and hardening."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import redis

from okane.local.redis_server import find_binary
from tests.deploy.files import (
    DEPLOY,
    OURS,
    ROOT,
    SERVICES,
    check_settings,
    drain_needed,
    duration,
    loaded,
    pinned,
    substituted,
)
from tests.local.waiting import wait_until

COMPOSE = DEPLOY / "compose.yaml"


PROCESSES = ("api", "worker", "dispatcher", "console")  # each has metrics, and the check of the image


def environment(name: str) -> dict[str, str]:
    return {key: substituted(str(value)) for key, value in SERVICES[name].get("environment", {}).items()}


def mounts(name: str) -> dict[str, str]:
    """Return the source of each mounted path."""
    parts = [volume.split(":") for volume in SERVICES[name].get("volumes", [])]
    return {target: source for source, target, *_ in parts}


def test_it_follows_the_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_has_the_whole_stack() -> None:
    assert set(OURS) == {"migrate", "api", "worker", "dispatcher", "console", "provider"}
    assert set(SERVICES) - set(OURS) == {"postgres", "valkey", "prometheus", "grafana"}


@pytest.mark.parametrize("name", OURS)
def test_every_setting_exists(name: str) -> None:
    settings = check_settings(environment(name), besides=["PGPASSWORD"])  # a variable of libpq
    if name in PROCESSES:
        assert (settings.host, settings.metrics_host, settings.metrics_port) == ("0.0.0.0", "0.0.0.0", 9101)


@pytest.mark.parametrize("name", OURS)
def test_a_stop_leaves_time_to_drain(name: str) -> None:
    assert duration(SERVICES[name]["stop_grace_period"]) >= drain_needed(check_settings({}))


@pytest.mark.parametrize("name", SERVICES)
def test_it_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"]["memory"]
    assert service["restart"] == ("on-failure:5" if name == "migrate" else "unless-stopped")
    assert pinned(service["image"])


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - {"migrate"}))
def test_it_is_checked(name: str) -> None:
    """The check is that of the image, or one in this file."""
    assert name in PROCESSES or SERVICES[name]["healthcheck"]["test"][0] == "CMD"


def test_nothing_is_published_beyond_loopback() -> None:
    ports = [substituted(port) for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 5
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports), ports
    assert not any("network_mode" in service for service in SERVICES.values())


def test_each_server_listens_where_its_port_is_published() -> None:
    env = {name: check_settings(environment(name), besides=["PGPASSWORD"]) for name in PROCESSES}
    for name, port in (("api", env["api"].port), ("console", env["console"].console_port)):
        [published] = SERVICES[name]["ports"]
        assert substituted(published).endswith(f":{port}")
    assert env["console"].console_host == "0.0.0.0"
    assert {one.console_host for name, one in env.items() if name != "console"} == {"127.0.0.1"}


def test_the_secret_of_sessions_is_given_to_the_console_alone() -> None:
    having = {name for name in SERVICES if "OKANE_CONSOLE_SECRET" in environment(name)}
    assert having == {"console"}


def test_the_servers_have_no_way_out() -> None:
    assert loaded(COMPOSE)["networks"]["data"] == {"internal": True}
    assert SERVICES["postgres"]["networks"] == SERVICES["valkey"]["networks"] == ["data"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_mounted_path_exists(name: str) -> None:
    volumes = loaded(COMPOSE)["volumes"]
    for source in mounts(name).values():
        assert (DEPLOY / source).exists() if source.startswith(".") else source in volumes, source
    for volume in SERVICES[name].get("volumes", []):
        assert not volume.startswith(".") or volume.endswith(":ro"), volume


def test_every_service_that_is_named_exists() -> None:
    for service in SERVICES.values():
        assert set(service.get("depends_on", {})) <= set(SERVICES)
        assert set(service["networks"]) <= set(loaded(COMPOSE)["networks"])
    env = environment("api")
    hosts = re.findall(r"(?://|@)([a-z]+):\d+", " ".join(env.values()))
    assert set(hosts) == {"postgres", "valkey", "provider"}


def test_no_password_has_a_default() -> None:
    text = COMPOSE.read_text()
    secrets = re.findall(r"\$\{(\w*PASSWORD\w*)(.*?)\}", text)
    assert {name for name, _ in secrets} == {"POSTGRES_PASSWORD", "REDIS_PASSWORD", "GRAFANA_PASSWORD"}
    assert all(rest.startswith(":?") for _, rest in secrets)
    given = {key: value for service in SERVICES.values() for key, value in service.get("environment", {}).items()}
    assert all(value.startswith("${") for key, value in given.items() if re.search("PASS|AUTH|SECRET", key))
    assert not re.search(r"://\w*:(?!\$\{)[^/@\s]*@", "\n".join(given.values()))


def test_no_password_is_an_argument() -> None:
    for service in SERVICES.values():
        assert not re.search(r"\$\{\w*(?:PASSWORD|SECRET|AUTH)", str(service.get("command")))


def test_valkey_requires_its_password_and_hides_it(tmp_path: Path, free_port: int) -> None:
    """Run the command of the file with the server of this environment."""
    shell, option, script = SERVICES["valkey"]["command"]
    program = f"{find_binary().path} - --port {free_port} --dir {tmp_path} --bind 127.0.0.1"
    script = script.replace("$$", "$").replace("valkey-server -", program)
    password = "long enough, with 'quotes'"
    server = subprocess.Popen([shell, option, script], env={**os.environ, "REDISCLI_AUTH": password})
    try:
        with redis.Redis(port=free_port, password=password) as client:
            wait_until(lambda: answers(client), 30)
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert client.config_get("appendonly") == {"appendonly": "yes"}
        arguments = psutil.Process(server.pid).cmdline()
        assert "valkey" in arguments[0] or "redis" in arguments[0]
        assert not any(password in argument for argument in arguments)
        with redis.Redis(port=free_port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
    finally:
        server.terminate()
        assert server.wait(30) == 0


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_the_servers_have_the_durability_that_the_guarantees_need() -> None:
    assert {"fsync=on", "synchronous_commit=on", "full_page_writes=on"} <= set(SERVICES["postgres"]["command"])
    valkey = SERVICES["valkey"]["command"][-1].splitlines()
    assert {"appendonly yes", "maxmemory-policy noeviction"} <= set(valkey)
    assert "/var/lib/postgresql" in mounts("postgres")
    assert "/data" in mounts("valkey")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (apt-get install prometheus)")
def test_prometheus_finds_its_configuration_and_its_rules(tmp_path: Path) -> None:
    for inside, source in mounts("prometheus").items():
        if source.startswith("."):
            target = tmp_path / inside.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(DEPLOY / source, target)
    [option] = [word for word in SERVICES["prometheus"]["command"] if word.startswith("--config.file=")]
    config = tmp_path / option.removeprefix("--config.file=").lstrip("/")
    command = ["promtool", "check", "config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"SUCCESS: .* rule", done.stdout)


def test_prometheus_takes_its_targets_from_okane() -> None:
    urls = [sd["url"] for job in loaded(DEPLOY / "prometheus.yml")["scrape_configs"] for sd in job["http_sd_configs"]]
    port = check_settings(environment("api"), besides=["PGPASSWORD"]).metrics_port
    assert urls == [f"http://{name}:{port}/http_sd" for name in ("api", "worker")]
    assert all("edge" in SERVICES[name]["networks"] for name in ("api", "worker", "prometheus"))
    own = loaded(ROOT / "grafana" / "prometheus" / "prometheus.yml")
    assert loaded(DEPLOY / "prometheus.yml")["global"] == own["global"]


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    own = loaded(ROOT / "grafana" / "provisioning" / "datasources" / "prometheus.yaml")
    own["datasources"][0]["url"] = "http://prometheus:9090"
    assert loaded(DEPLOY / "datasource.yaml") == own
    [provider] = loaded(ROOT / "grafana" / "provisioning" / "dashboards" / "okane.yaml")["providers"]
    assert mounts("grafana")[provider["options"]["path"]] == "../grafana/dashboards"


def test_there_are_connections_for_a_dozen_workers() -> None:
    [most] = [int(word.partition("=")[2]) for word in SERVICES["postgres"]["command"] if "max_connections" in word]
    assert most >= 2 * 31 + 12 * 18 + 20  # docs/operations.md
