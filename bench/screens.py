"""Draws the pictures of the dashboards from a real run with faults in it: `python -m bench.screens`.

A system with load, a worker killed and started again, a slow provider, Redis away, declines, a client that speaks no HTTP,
a provider that takes nothing, one of two receivers of webhooks away, and a dispatcher killed; a Prometheus with the
configuration of grafana/prometheus that scrapes it every five seconds. Nothing is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.progress import say
from bench.system import OKANE, Deployment, Provider, System, deployed, receiver, running
from grafana.screens.__main__ import PICTURES, draw, fetch_boards
from grafana.screens.prometheus import Span
from okane.local.okane_process import OKANE as OKANE_COMMAND
from okane.local.okane_process import OkaneProcess, answers_http, own_path
from okane.local.ports import LOOPBACK, free_port

SCRAPE_S = 5
RATE = 40.0
_RULES = Path(__file__).parents[1] / "grafana" / "prometheus"
_WELL: Mapping[str, float | str] = {"success": 96, "decline": 3, "unavailable": 1, "latency_ms": "20-120"}
# As few places as let a slow provider be seen, and outcomes that stay open go to a human within the run.
_ENV = {
    "OKANE_STREAM": "okane:payments",
    "WORKER_COUNT": "32",
    "OKANE_UNKNOWN_DEADLINE": "90s",
    "OKANE_WEBHOOK_MASTER": secrets.token_hex(32),
    "OKANE_WEBHOOK_ALLOW": f"{LOOPBACK}/32",
}


@dataclass(frozen=True, slots=True)
class Scene:
    """The system while it plays."""

    system: System
    deployment: Deployment
    provider_url: str
    receivers: Sequence[Provider]

    def killed_dispatcher(self, pause_s: float) -> None:
        """kill -9 of a dispatcher; the other one takes its endpoints over after the lease."""
        dispatcher = self.deployment.dispatchers[0]
        dispatcher.kill()
        time.sleep(pause_s)
        dispatcher.start()

    def receiver_away(self, pause_s: float) -> None:
        """One of the receivers is away; its events wait."""
        away = self.receivers[1].process
        away.kill()
        time.sleep(pause_s)
        away.start()

    def killed_worker(self, pause_s: float) -> None:
        """kill -9 of a worker; its payments are taken over after the lease."""
        worker = self.deployment.workers[0]
        worker.kill()
        time.sleep(pause_s)
        worker.start()

    def no_requests(self, pause_s: float) -> None:
        """Send bytes to the API that are not HTTP."""
        until = time.monotonic() + pause_s
        while time.monotonic() < until:
            with socket.create_connection((LOOPBACK, self.deployment.api_ports[0]), timeout=5) as connection:
                connection.sendall(b"what?\r\n\r\n")
                connection.recv(4096)
            time.sleep(1)

    def redis_away(self, pause_s: float) -> None:
        self.system.redis.kill()
        time.sleep(pause_s)
        self.system.redis.start()

    def provider(self, **changes: float | str) -> Callable[[float], None]:
        """Change the provider's behaviour for a while."""

        def act(pause_s: float) -> None:
            control(self.provider_url, **changes)
            time.sleep(pause_s)
            control(self.provider_url, **_WELL)

        return act


def control(url: str, **changes: float | str) -> None:
    """Change how the mock provider behaves."""
    body = json.dumps(changes).encode()
    request = urllib.request.Request(f"{url}/control", data=body, method="PUT")  # noqa: S310 - on loopback
    with urllib.request.urlopen(request, timeout=5):  # noqa: S310 - a loopback http address
        pass


def subscribe(scene: Scene) -> None:
    """Register an endpoint at each receiver, for all events."""
    for one in scene.receivers:
        body = json.dumps({"url": f"{one.url}/hook", "types": ["payment.*"]}).encode()
        url = f"http://{LOOPBACK}:{scene.deployment.api_ports[0]}/v1/webhook-endpoints"
        request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10):  # noqa: S310 - a loopback http address
            pass


def play(scene: Scene, *, seconds: float) -> None:
    """The incidents of the recording, each at its share of the time."""
    acts: Sequence[tuple[float, str, Callable[[float], None], float]] = (
        (0.15, "a worker is killed", scene.killed_worker, 0.08),
        (0.25, "a receiver of webhooks is away", scene.receiver_away, 0.08),
        (0.35, "the provider is slow", scene.provider(latency_ms="1500-4000"), 0.06),
        (0.52, "Redis is away", scene.redis_away, 1 / 60),
        (0.56, "a dispatcher is killed", scene.killed_dispatcher, 0.08),
        (0.66, "the provider declines", scene.provider(decline=60), 0.06),
        (0.75, "a client speaks no HTTP", scene.no_requests, 0.03),
        (0.80, "the provider takes nothing", scene.provider(unavailable=1_000), 0.04),
    )
    began = time.monotonic()
    for at, what, act, lasting in acts:
        _sleep_until(began + at * seconds)
        say(f"{what} for {lasting * seconds:.0f} s")
        act(lasting * seconds)
        scene.deployment.check_alive()
    _sleep_until(began + seconds)


def _sleep_until(deadline_s: float) -> None:
    time.sleep(max(0.0, deadline_s - time.monotonic()))


@contextlib.contextmanager
def scraped(folder: Path, *, sd_url: str) -> Iterator[str]:
    """Yield the address of a Prometheus that finds its targets through `sd_url`."""
    program = shutil.which("prometheus")
    if program is None:
        sys.exit("prometheus is not installed (Debian: apt-get install prometheus)")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    shipped = (_RULES / "prometheus.yml").read_text()
    config = folder / "prometheus.yml"
    config.write_text(
        shipped.replace("15s", f"{SCRAPE_S}s")
        .replace("http://127.0.0.1:9101/http_sd", sd_url)
        .replace("- rules.yml", f"- {_RULES / 'rules.yml'}")
    )
    process = OkaneProcess(
        name="prometheus",
        program=(program,),
        arguments=[
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={LOOPBACK}:{port}",
        ],
        env={},
        log=folder / "prometheus.log",
        probe=answers_http(port, "/-/ready"),
        drain_s=10,
    )
    process.start()
    try:
        yield f"http://{LOOPBACK}:{port}"
    finally:
        process.stop()


@contextlib.contextmanager
def paid(scene: Scene, *, seconds: float) -> Iterator[None]:
    """Payments come in inside the block; at its end, what became of them."""
    command = [*OKANE_COMMAND, "load", "--rate", str(RATE), "--payments", str(round(RATE * seconds)), "--json"]
    command += ["--url", f"http://{LOOPBACK}:{scene.deployment.api_ports[0]}", "--provider-url", scene.provider_url]
    load = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **own_path()})  # noqa: S603 - a program of ours
    try:
        yield
        output, _ = load.communicate(timeout=seconds + 180)
        say(f"the load says: {output.strip()}")
    finally:
        load.kill()
        load.wait()


def run(out: Path, *, minutes: float, kept: Path) -> None:
    """Play, and draw. Prometheus' data stay in `kept`."""
    seconds = minutes * 60
    with running() as system:
        journal = ("--journal", str(system.folder / "journal.jsonl"))
        with (
            Provider(system, "mock provider", "okane", "provider", *journal, "--magic-amounts").running() as provider,
            deployed(
                system, OKANE, database_url=system.new_database(), provider_url=provider.url, env=_ENV
            ) as deployment,
            receiver(system) as steady,
            receiver(system) as unsteady,
        ):
            scene = Scene(system, deployment, provider.url, (steady, unsteady))
            control(provider.url, **_WELL)
            deployment.start_apis()
            deployment.start_workers(2)
            for _ in range(2):
                deployment.start_dispatcher()
            subscribe(scene)
            sd_url = f"http://{LOOPBACK}:{deployment.metrics_ports[0]}/http_sd"
            with scraped(kept, sd_url=sd_url) as prometheus:
                began_s = time.time()
                say(f"{RATE:.0f} payments/s for {minutes:g} min; Prometheus is {prometheus}")
                with paid(scene, seconds=seconds):
                    play(scene, seconds=seconds)
                    span = Span(from_s=began_s, to_s=time.time(), interval_s=SCRAPE_S)
                    boards = asyncio.run(fetch_boards(prometheus, span))
                    say(f"draw again with --from {span.from_s:.0f} --to {span.to_s:.0f} --interval {SCRAPE_S}")
                draw(boards, out, report=say)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=PICTURES)
    parser.add_argument("--keep", type=Path, help="a folder for Prometheus' data: they stay, to be drawn again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="okane-screens-") as folder:
        run(options.out, minutes=options.minutes, kept=options.keep or Path(folder))


if __name__ == "__main__":
    main()
