"""The files for Redis behind Sentinel and for Redis Cluster, on top of the plain ones, and the servers of a Compose file."""

from __future__ import annotations

import copy
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import redis

from okane.local.redis_server import find_binary
from tests.deploy.files import DEPLOY, SERVICES, loaded, substituted
from tests.deploy.manifests import ALL, CLUSTER, SENTINEL, Manifest

PASSWORD = "long enough, with 'quotes'"


@dataclass(frozen=True)
class Variant:
    """A Compose file that changes compose.yaml, and a component that changes the manifests."""

    compose: Path
    component: Path

    @cached_property
    def changes(self) -> Mapping[str, Mapping[str, Any]]:
        """The services of the file alone."""
        found: Mapping[str, Mapping[str, Any]] = loaded(self.compose)["services"]
        return found

    def service(self, name: str) -> dict[str, Any]:
        """Return a service as Compose merges it from both files."""
        change = dict(self.changes[name])
        extended = change.pop("extends", {"service": name})
        found = copy.deepcopy(dict(SERVICES[extended["service"]]))
        for key, value in change.items():
            if key == "volumes":
                by_target = {volume.split(":")[1]: volume for volume in [*found["volumes"], *value]}
                found[key] = list(by_target.values())
            elif isinstance(value, dict):
                before = found.get(key, {})
                found[key] = {**(dict.fromkeys(before) if isinstance(before, list) else before), **value}
            else:
                found[key] = value
        return found

    def address(self) -> str:
        """Return the address of Redis that the processes get."""
        return substituted(self.service("worker")["environment"]["REDIS_URL"])

    def patched(self) -> dict[tuple[str, str], Manifest]:
        """Return the manifests that the component changes, as kustomize changes them."""
        found: dict[tuple[str, str], Manifest] = {}
        for patch in loaded(self.component / "kustomization.yaml")["patches"]:
            known = patch["target"]["kind"], patch["target"]["name"]
            found[known] = copy.deepcopy(ALL[known])
            for change in loaded(self.component / patch["path"]):
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


WITH_SENTINEL = Variant(DEPLOY / "compose.sentinel.yaml", SENTINEL)
WITH_CLUSTER = Variant(DEPLOY / "compose.cluster.yaml", CLUSTER)


class RunningServers:
    """The servers of a variant, by its own commands, as processes on loopback.

    `rewrite` puts the local ports and short times into a command.
    """

    def __init__(self, variant: Variant, folder: Path, ports: Mapping[str, int]) -> None:
        self._variant, self._folder, self._ports = variant, folder, ports
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        command, environment = self.command_of(name)
        self._processes[name] = subprocess.Popen(command, env=environment)

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

    def command_of(self, name: str) -> tuple[list[str], dict[str, str]]:
        """Return the command of a service as it runs here, and its environment."""
        shell, option, script = self._variant.service(name)["command"]
        (self._folder / name).mkdir(exist_ok=True)
        given = self._variant.service(name)["environment"]
        environment = {key: self.rewrite(name, str(value)) for key, value in given.items()}
        environment |= {"REDISCLI_AUTH": PASSWORD, "ANNOUNCED": "127.0.0.1"}
        script = script.replace("$$", "$").replace("/data/", f"{self._folder / name}/")
        script = self.rewrite(name, script.replace("valkey-server ", f"{find_binary().path} "))
        return [shell, option, script], {**os.environ, **environment}

    def here(self, name: str) -> str:
        """Return the lines of a server's configuration that hold on this machine alone."""
        return f"port {self._ports[name]}\nbind 127.0.0.1\ndir {self._folder / name}"

    def rewrite(self, name: str, text: str) -> str:
        """Return a command, or a value of its environment, with what is different here."""
        raise NotImplementedError
