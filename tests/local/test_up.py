"""`okane up` as a user runs it: a process of its own, real servers, real signals."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from okane.local.data_folder import DataFolder, Endpoints
from okane.local.redis_server import RedisServer
from tests.local.waiting import wait_until

ANY_PORT = [
    f"--{name}-port=0" if name else "--port=0" for name in ("", "console", "provider", "postgres", "redis", "metrics")
]
# What the machine of a developer may have set is not what these tests are about.
FOREIGN = ("DATABASE_URL", "REDIS_URL", "REDIS_ADDR", "PROVIDER_BASE_URL", "PORT", "MOCK_PROVIDER_PORT")


@dataclass
class Up:
    """A running `okane up`."""

    folder: DataFolder
    output: Path
    process: subprocess.Popen[bytes]
    endpoints: Endpoints = field(init=False, repr=False)

    def wait_until_up(self) -> Up:
        def is_up() -> bool:
            assert self.process.poll() is None, self.text()
            return "okane is up" in self.text()

        wait_until(is_up, 60)
        found = self.folder.endpoints()
        assert found is not None
        self.endpoints = found
        return self

    def text(self) -> str:
        return self.output.read_text()

    def children(self) -> dict[str, int]:
        return {record.name: record.pid for record in self.folder.roster.load()}

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def request(self, path: str, body: object = None) -> tuple[int, Any]:
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": "application/json"}
        if self.endpoints.api_key is not None:
            headers["Authorization"] = f"Bearer {self.endpoints.api_key}"
        request = urllib.request.Request(self.endpoints.api_url + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def pay(self, key: str) -> str:
        """Send a payment; its id."""
        status, answer = self.request("/v1/payments", {"amount": 440, "idempotency_key": key})
        assert status == 202, answer
        identifier: str = answer["payment"]["id"]
        return identifier

    def status(self, payment: str) -> str:
        with contextlib.suppress(OSError):
            _, answer = self.request(f"/v1/payments/{payment}")
            return str(answer.get("payment", {}).get("status"))
        return "unreachable"


Start = Callable[..., Up]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `okane up` on free ports, on one data folder unless told otherwise; ends it after the test."""
    started: list[Up] = []

    def run(*options: str, data: Path = tmp_path / "data", **env: str) -> Up:
        output = tmp_path / f"up-{len(started)}.log"
        ours = {
            name: value for name, value in os.environ.items() if not name.startswith("OKANE_") and name not in FOREIGN
        }
        with output.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "okane", "up", f"--data={data}", *ANY_PORT, *options],
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**ours, "PYTHONPATH": str(Path(__file__).parents[2]), **env},
            )
        started.append(Up(folder=DataFolder(data), output=output, process=process))
        return started[-1]

    yield run
    for up in started:
        if up.process.poll() is None:
            up.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            up.process.wait(60)
        if up.process.poll() is None:
            up.process.kill()
            up.process.wait()


def alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


TERMINAL = ("success", "failed_final")
SETTLED = (*TERMINAL, "failed_retryable")


def test_one_command_runs_everything_and_ctrl_c_ends_all_of_it(start: Start) -> None:
    up = start().wait_until_up()
    children = up.children()
    assert set(children) == {"postgres", "redis", "provider", "dispatcher", "worker-1", "worker-2", "api", "console"}
    payment = up.pay("one")
    wait_until(lambda: up.status(payment) in SETTLED)
    for url in up.endpoints.metrics_urls.values():
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert b"okane_" in answer.read()
    assert up.endpoints.console_url is not None
    assert up.endpoints.console_url in up.text()
    with urllib.request.urlopen(up.endpoints.console_url, timeout=10) as answer:
        assert answer.url.endswith("/console/login")
    assert f"kill -9 {children['worker-1']}" in up.text()
    assert f"Authorization: Bearer {up.endpoints.api_key}" in up.text()  # to be pasted
    assert up.stop() == 0, up.text()
    assert not [name for name, pid in children.items() if alive(pid)]
    assert up.folder.roster.load() == []
    assert up.folder.endpoints() is None


def test_what_was_paid_is_there_after_a_restart(start: Start) -> None:
    first = start().wait_until_up()
    payment = first.pay("kept")
    wait_until(lambda: first.status(payment) in TERMINAL, 60)  # what a retry would change is not what this is about
    before, key = first.request(f"/v1/payments/{payment}"), first.endpoints.api_key
    assert first.stop() == 0
    assert first.folder.api_key.stat().st_mode & 0o777 == 0o600
    second = start().wait_until_up()
    assert second.request(f"/v1/payments/{payment}") == before
    assert second.endpoints.api_key == key  # what was pasted once still works


def test_clients_without_keys_are_taken_when_told_to(start: Start) -> None:
    up = start("--no-keys").wait_until_up()
    assert up.endpoints.api_key is None
    assert "Authorization" not in up.text()
    payment = up.pay("open")
    assert up.stop() == 0
    again = start().wait_until_up()
    assert again.endpoints.api_key is not None
    assert again.status(payment) != "None"  # the same account
    up.endpoints = dataclasses.replace(again.endpoints, api_key=None)
    assert up.request(f"/v1/payments/{payment}")[0] == 401


def test_a_killed_worker_comes_back_and_the_payments_settle(start: Start) -> None:
    up = start(VISIBILITY_TIMEOUT="6").wait_until_up()
    payments = [up.pay(f"key-{number}") for number in range(20)]
    for name in ("worker-1", "console"):
        os.kill(up.children()[name], signal.SIGKILL)
    wait_until(lambda: "worker-1 is back" in up.text() and "console is back" in up.text())
    assert "worker-1 died (signal 9), restarting in 1 s; its payments are taken over after the lease (6 s)" in up.text()
    assert "console died (signal 9), restarting in 1 s; payments do not notice" in up.text()
    wait_until(lambda: all(up.status(payment) in SETTLED for payment in payments), 60)


def test_a_killed_supervisor_leaves_nothing_that_the_next_start_does_not_end(start: Start) -> None:
    first = start(VISIBILITY_TIMEOUT="6").wait_until_up()
    payment = first.pay("kept")
    children = first.children()
    # Stopped, it cannot follow the kernel's signal at its parent's death: it is the one that stays.
    os.kill(children["worker-2"], signal.SIGSTOP)
    first.process.kill()
    first.process.wait()
    assert first.folder.endpoints() is None
    second = start(VISIBILITY_TIMEOUT="6").wait_until_up()
    assert f"ended worker-2 (pid {children['worker-2']}), left running by an earlier okane" in second.text()
    assert not [name for name, pid in children.items() if alive(pid)]
    wait_until(lambda: second.status(payment) in SETTLED, 60)


def test_a_second_up_on_the_same_folder_names_the_first(start: Start) -> None:
    first = start().wait_until_up()
    second = start()
    assert second.process.wait(30) == 1
    assert f"already up in {first.folder.path} (pid {first.process.pid})" in second.text().replace("\n", " ")


def test_a_taken_port_is_named_with_its_owner_and_option_before_anything_starts(start: Start, tmp_path: Path) -> None:
    first = start().wait_until_up()
    for name, option, url in (
        ("api", "--port", first.endpoints.api_url),
        ("console", "--console-port", first.endpoints.console_url or ""),
    ):
        port = urlsplit(url).port
        second = start(f"{option}={port}", data=tmp_path / "other")
        assert second.process.wait(30) == 1
        owner = rf"port {port} is taken by pid {first.children()[name]} \(.*\)"
        assert re.search(rf"{owner}: give another one with {option} ", second.text()), second.text()
        assert not (tmp_path / "other" / "postgres").exists()


def test_servers_that_the_environment_names_are_used_instead_of_embedded_ones(
    start: Start, database_url: str, private_redis: RedisServer
) -> None:
    up = start(DATABASE_URL=database_url, REDIS_URL=private_redis.url).wait_until_up()
    assert set(up.children()) == {"provider", "dispatcher", "worker-1", "worker-2", "api", "console"}
    payment = up.pay("elsewhere")
    wait_until(lambda: up.status(payment) in SETTLED)
    assert up.stop() == 0
    assert private_redis.ready()


def test_killed_servers_come_back_and_nothing_else_has_to_restart(start: Start) -> None:
    up = start().wait_until_up()
    before = up.children()
    for name in ("postgres", "redis"):
        os.kill(before[name], signal.SIGKILL)
    wait_until(lambda: "postgres is back" in up.text() and "redis is back" in up.text())
    after = up.children()
    assert {name for name in after if after[name] != before[name]} == {"postgres", "redis"}
    wait_until(lambda: up.request("/v1/health")[0] == 200)
    payment = up.pay("after")
    wait_until(lambda: up.status(payment) in SETTLED)


def test_ctrl_c_during_the_start_ends_what_has_started(start: Start) -> None:
    up = start()
    wait_until(lambda: "redis" in up.children())
    children = up.children()
    assert up.stop() == 0
    assert not [name for name, pid in children.items() if alive(pid)]
