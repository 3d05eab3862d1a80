"""The services of compose.yaml that are okane, as containers over a Postgres and a Redis of the tests."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from urllib.parse import urlsplit

import pytest

from okane.local.okane_process import answers_http
from okane.local.ports import free_port, is_taken
from tests.deploy.container_engine import Engine, options_of
from tests.deploy.files import SERVICES, substituted
from tests.local.waiting import wait_until

# By chance the provider would refuse some payments, and a refused one settles without a charge.
ALWAYS = ("--unavailable", "0", "--decline", "0")
_LOOPBACK = "127.0.0.1"
_HOSTS = ("postgres", "valkey")


class Stack:
    """Commands, environments and limits are those of the file. Only addresses and ports differ: all is on one loopback."""

    def __init__(self, engine: Engine, *, database_url: str, redis_url: str) -> None:
        self.engine = engine
        postgres, redis = urlsplit(database_url), urlsplit(redis_url)
        self._given = {
            "POSTGRES_PASSWORD": postgres.password or "",
            "REDIS_PASSWORD": redis.password or "",
            "OKANE_WEBHOOK_MASTER": "0123456789abcdef" * 4,
            "OKANE_CONSOLE_SECRET": "fedcba9876543210" * 4,
        }
        self._ports = {"postgres": postgres.port or 0, "valkey": redis.port or 0}
        for name in ("provider", "api", "console"):
            self._ports[name] = free_port(besides=self._ports.values())
        self._addresses = {
            "0.0.0.0": _LOOPBACK,
            "postgres:5432": f"postgres:{self._ports['postgres']}",
            "valkey:6379": f"valkey:{self._ports['valkey']}",
            # By address: a mock provider that listens on loopback refuses requests for other names.
            "provider:8081": f"{_LOOPBACK}:{self._ports['provider']}",
            f"{_LOOPBACK}:8081": f"{_LOOPBACK}:{self._ports['provider']}",
        }

    @property
    def api_url(self) -> str:
        return f"http://{_LOOPBACK}:{self._ports['api']}"

    @property
    def console_url(self) -> str:
        return f"http://{_LOOPBACK}:{self._ports['console']}"

    @property
    def provider_url(self) -> str:
        return f"http://{_LOOPBACK}:{self._ports['provider']}"

    def start(self, service: str, name: str | None = None) -> None:
        """Start a container of this service, and wait until it answers; then its health check must succeed."""
        name = name or service
        environment = self._environment(service)
        port = int(environment.get("OKANE_METRICS_PORT", self._ports["provider"]))
        answers = answers_http(port, "/health" if service == "provider" else "/healthz")
        self.engine.call("run", "--detach", *self._arguments(service, name, environment))
        try:
            wait_until(answers, 90)
        except AssertionError:
            pytest.fail(f"{name} does not answer:\n{self.engine.logs(name)}")
        assert self.engine.healthy(name), name

    def run(self, service: str) -> subprocess.CompletedProcess[str]:
        """Run a container of this service to its end."""
        return self.engine.run("run", "--rm", *self._arguments(service, f"{service}-once", self._environment(service)))

    def stop(self, name: str) -> int:
        """Stop a container as Compose does, remove it, and return its exit code."""
        self.engine.call("stop", name)
        code = int(self.engine.inspect(name)["State"]["ExitCode"])
        self.engine.call("rm", name)
        return code

    def execute(self, name: str, *command: str) -> str:
        """Run a command of okane in a running container, as deploy/README.md does; return what it prints."""
        return self.engine.call("exec", name, "okane", *command)

    def _arguments(self, service: str, name: str, environment: Mapping[str, str]) -> list[str]:
        described = SERVICES[service]
        options = ["--pull=never", f"--name={name}", f"--hostname={name}", *options_of(described)]
        options += [f"--add-host={host}:{_LOOPBACK}" for host in _HOSTS]
        options += [f"--env={key}={value}" for key, value in environment.items()]
        command = [self._text(word) for word in described["command"]]
        test = described.get("healthcheck", {}).get("test")
        if test is not None:
            program = [self._text(word) for word in test[1:]]
            options.append(f"--health-cmd={json.dumps(program)}")
        return [*options, described["image"], *command, *(ALWAYS if service == "provider" else ())]

    def _environment(self, service: str) -> dict[str, str]:
        found = {key: self._text(str(value)) for key, value in SERVICES[service]["environment"].items()}
        if "OKANE_METRICS_PORT" in found:
            found["OKANE_METRICS_PORT"] = str(_two_free_ports())
        if service == "provider":
            found["MOCK_PROVIDER_PORT"] = str(self._ports["provider"])
        if service in ("api", "console"):
            found["OKANE_PORT" if service == "api" else "OKANE_CONSOLE_PORT"] = str(self._ports[service])
        return found

    def _text(self, value: str) -> str:
        value = substituted(value, self._given)
        for before, after in self._addresses.items():
            value = value.replace(before, after)
        return value


def _two_free_ports() -> int:
    """Return the first of two free ports in a row: the API has two processes, and each has its metrics."""
    while is_taken((first := free_port()) + 1):
        pass
    return first
