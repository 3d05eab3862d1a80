"""The programs of the system, with the ports, addresses and settings that each gets. Starts nothing.

Ports are free ones and everything is in one folder: a running `okane up` is never touched.
"""

from __future__ import annotations

import secrets
import shutil
import struct
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from okane.local.data_folder import DataFolder
from okane.local.okane_process import OkaneProcess, answers_http
from okane.local.ports import LOOPBACK, free_port
from okane.local.postgres import PostgresServer
from okane.local.redis_server import RedisServer
from torture.options import TortureOptions
from torture.system.provider_secrets import WEBHOOK_SECRET
from torture.system.shape import Shape

# How the provider behaves between faults: mostly well, as providers do.
PROVIDER = ("--success", "90", "--decline", "5", "--unavailable", "5", "--latency-ms", "2-20", "--hang-s", "3")
SKEW = Path(__file__).with_name("skew")
_DRAIN_S = 10.0
_MAX_CONNECTIONS = "200"  # sessions of killed processes linger for a moment
# A standby finds what it missed, and looks for its primary again at once.
_REPLICATED = {"wal_keep_size": "256MB", "wal_retrieve_retry_interval": "200ms"}

Probe = Callable[[], bool]


class ProgramFactory:
    """Builds each program again for every start. `places` are the data folders of the servers."""

    def __init__(
        self,
        *,
        options: TortureOptions,
        shape: Shape,
        folder: DataFolder,
        places: Mapping[str, Path],
    ) -> None:
        self._options = options
        self._shape = shape
        self._folder = folder
        self._places = places
        self._ports: dict[str, int] = {}
        self.redis_password = secrets.token_hex(16)
        self.webhook_master = secrets.token_hex(32)
        self.stream = f"torture-{time.time_ns()}"
        self.operations_stream = f"{self.stream}:operations"

    def port(self, what: str) -> int:
        """The port of a server, an API, or a process's metrics (`worker-1 metrics`): a free one, then always the same."""
        if what not in self._ports:
            self._ports[what] = free_port(besides=self._ports.values())
        return self._ports[what]

    @property
    def folder(self) -> Path:
        return self._folder.path

    def log(self, name: str) -> Path:
        return self._folder.log(name)

    def redis_url(self, port: int) -> str:
        """The address of either server, or of a way to it: both take the same password."""
        return f"redis://:{self.redis_password}@{LOOPBACK}:{port}/0"

    @property
    def provider_url(self) -> str:
        return f"http://{LOOPBACK}:{self.port('provider')}"

    def metrics_url(self, process: str) -> str:
        return f"http://{LOOPBACK}:{self.port(f'{process} metrics')}/metrics"

    def postgres(self, name: str) -> PostgresServer:
        return PostgresServer(
            name=name,
            folder=self._places[name],
            log=self._folder.log(name),
            port=self.port(name),
            # The time of each commit is that of no process under test.
            settings={
                "max_connections": _MAX_CONNECTIONS,
                "max_wal_size": "128MB",
                "track_commit_timestamp": "on",
                **(_REPLICATED if self._shape.has_standbys else {}),
            },
        )

    def postgres_folder(self, name: str) -> Path:
        return self._places[name]

    def redis(self, number: int, settings: Mapping[str, str] | None = None) -> RedisServer:
        name = f"redis-{number}"
        folder = self.redis_folder(number)
        if not (folder / "password").exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / "password").touch(mode=0o600)
            (folder / "password").write_text(self.redis_password)
        return RedisServer(
            folder=folder, log=self._folder.log(name), port=self.port(name), name=name, settings=settings
        )

    def redis_folder(self, number: int) -> Path:
        return self._places["redis"] / str(number)

    def wipe_redis(self, number: int) -> None:
        """Delete what it has on the disk, but its place in a cluster. It must not be running."""
        for files in self.redis_folder(number).glob("*/*"):
            if files.is_dir():
                shutil.rmtree(files)
            elif files.name != "nodes.conf":
                files.unlink()

    def provider(self) -> OkaneProcess:
        port = self.port("provider")
        seed = ("--seed", str(self._options.seed))
        arguments = ["provider", "--port", str(port), "--journal", str(self._folder.journal), *PROVIDER, *seed]
        return OkaneProcess(
            name="provider",
            arguments=arguments,
            env={"OKANE_LOG_FORMAT": "json"},
            log=self._folder.log("provider"),
            probe=answers_http(port, "/health"),
            drain_s=_DRAIN_S,
        )

    def gateway(self) -> OkaneProcess:
        port = self.port("gateway")
        notify = [f"http://{LOOPBACK}:{self.port(api)}/v1/providers/stripe/webhook" for api in self._shape.apis]
        arguments = ["--port", str(port), "--journal", str(self.gateway_journal), "--seed", str(self._options.seed)]
        return OkaneProcess(
            name="gateway",
            program=(sys.executable, "-P", "-m", "torture.gateway"),
            arguments=[*arguments, "--notify", *notify],
            env={"GATEWAY_SECRET": WEBHOOK_SECRET},
            log=self._folder.log("gateway"),
            probe=answers_http(port, "/health"),
            drain_s=_DRAIN_S,
        )

    @property
    def gateway_journal(self) -> Path:
        return self._folder.path / "gateway.jsonl"

    @property
    def gateway_url(self) -> str:
        return f"http://{LOOPBACK}:{self.port('gateway')}"

    def receiver(self) -> OkaneProcess:
        port = self.port("receiver")
        arguments = ["--port", str(port), "--journal", str(self.receiver_journal), "--seed", str(self._options.seed)]
        return OkaneProcess(
            name="receiver",
            program=(sys.executable, "-P", "-m", "torture.receiver"),
            arguments=arguments,
            env={},
            log=self._folder.log("receiver"),
            probe=answers_http(port, "/health"),
            drain_s=_DRAIN_S,
        )

    @property
    def receiver_journal(self) -> Path:
        return self._folder.path / "receiver.jsonl"

    @property
    def receiver_url(self) -> str:
        return f"http://{LOOPBACK}:{self.port('receiver')}"

    def api(self, name: str, env: Mapping[str, str]) -> OkaneProcess:
        port = self.port(name)
        probe = answers_http(port, "/v1/health")
        return self._process(name, ["api"], probe=probe, env={"OKANE_PORT": str(port), **env})

    def worker(self, name: str, env: Mapping[str, str]) -> OkaneProcess:
        probe = answers_http(self.port(f"{name} metrics"), "/healthz")
        return self._process(name, ["worker", "--name", name], probe=probe, env=env)

    def dispatcher(self, name: str, env: Mapping[str, str]) -> OkaneProcess:
        probe = answers_http(self.port(f"{name} metrics"), "/healthz")
        return self._process(name, ["dispatch", "--name", name], probe=probe, env=env)

    def _process(self, name: str, arguments: list[str], *, probe: Probe, env: Mapping[str, str]) -> OkaneProcess:
        return OkaneProcess(
            name=name,
            arguments=arguments,
            env={
                **self._options.env,
                "OKANE_STREAM": self.stream,
                "OKANE_OPERATIONS_STREAM": self.operations_stream,
                "OKANE_METRICS_PORT": str(self.port(f"{name} metrics")),
                "OKANE_LOG_FORMAT": "json",
                **(self._webhook_env if self._shape.dispatchers else {}),
                **self._clock_env(name),
                **env,
            },
            log=self._folder.log(name),
            probe=probe,
            drain_s=_DRAIN_S,
        )

    @property
    def _webhook_env(self) -> Mapping[str, str]:
        return {"OKANE_WEBHOOK_MASTER": self.webhook_master, "OKANE_WEBHOOK_ALLOW": "127.0.0.0/8"}

    def set_clock(self, process: str, skew_s: float) -> None:
        """Shift the wall clock of a process whose clock can be shifted (`Shape.skewable`)."""
        with self._clock(process).open("r+b") as file:
            file.write(struct.pack("d", skew_s))

    def _clock_env(self, process: str) -> Mapping[str, str]:
        if process not in self._shape.skewable:
            return {}
        clock = self._clock(process)
        if not clock.exists():
            clock.write_bytes(struct.pack("d", 0.0))
        return {"PYTHONPATH": str(SKEW), "OKANE_TORTURE_CLOCK": str(clock)}

    def _clock(self, process: str) -> Path:
        return self._folder.path / f"{process}.clock"
