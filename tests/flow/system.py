"""A whole system of real processes for the flow tests: API, workers and provider over given servers, on small numbers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp

from okane.client import Client, NewPayment
from okane.lanes import operations_stream, payments_stream
from okane.local.okane_process import answers_http
from okane.local.ports import free_port
from streams import RetryPolicy, StreamStats
from tests.forked_process import ForkedOkaneProcess
from torture.history.collect import is_empty
from torture.history.journals import read_broker

TERMINAL = frozenset({"success", "failed_final", "canceled"})

OPEN_OPERATIONS = frozenset({"pending", "processing", "failed_retryable", "unknown", "submitted"})

MASTER = "0123456789abcdef0123456789abcdef"  # of the secrets of webhook endpoints

SMALL = {
    "OKANE_AUTH": "none",
    "VISIBILITY_TIMEOUT": "2s",
    "OKANE_PROVIDER_TIMEOUT": "1s",
    "OKANE_SWEEP_GRACE": "1s",
    "OKANE_SWEEP_INTERVAL": "200ms",
    "OKANE_RETRY_BASE": "50ms",
    "OKANE_RETRY_CAP": "500ms",
    "OKANE_CONSISTENCY_LAG": "100ms",
    "OKANE_LOOK_UP_DELAYS": "200ms,500ms,1s",
    "OKANE_DRAIN": "5s",
}


class System:
    """One running system. Every request goes over HTTP; nothing reaches into the processes."""

    def __init__(self, *, folder: Path, database_url: str, redis_url: str, http: aiohttp.ClientSession) -> None:
        self._folder = folder
        self._http = http
        self._redis_url = redis_url
        self._processes: dict[str, ForkedOkaneProcess] = {}
        self._ports: dict[str, int] = {}
        self.stream = f"test-{self._port('api')}-{time.time_ns()}"
        self.url = f"http://127.0.0.1:{self._port('api')}"
        self.client = Client(
            self.url, retries=RetryPolicy(base=timedelta(milliseconds=100), cap=timedelta(seconds=1), max_attempts=None)
        )
        self.provider_url = f"http://127.0.0.1:{self._port('provider')}"
        self.env = {
            "OKANE_DATABASE_URL": database_url,
            "OKANE_REDIS_URL": redis_url,
            "OKANE_PROVIDER_BASE_URL": self.provider_url,
            "OKANE_PORT": str(self._ports["api"]),
            "OKANE_STREAM": self.stream,
            "OKANE_LOG_LEVEL": "debug",
            **SMALL,
        }

    async def start(self, *names: str, provider: Iterable[str] = ()) -> None:
        """Start the provider (with these options), the API, and workers of these names."""
        await self.start_provider(*provider)
        await asyncio.gather(self.start_api(), *(self.start_worker(name) for name in names))

    async def start_provider(self, *options: str) -> None:
        port = self._ports["provider"]
        arguments = ["provider", "--port", str(port), "--journal", str(self._folder / "journal.jsonl"), *options]
        await self._start("provider", arguments, {}, answers_http(port, "/health"))

    async def start_api(self, name: str = "api", **more_env: str) -> str:
        """Start an API on a port of its own, and return its address."""
        port = self._port(name)
        env = {"OKANE_PORT": str(port), "OKANE_METRICS_PORT": str(self._port(f"{name} metrics")), **more_env}
        await self._start(name, ["api"], env, answers_http(port, "/v1/health"))
        return f"http://127.0.0.1:{port}"

    async def start_worker(self, name: str, **more_env: str) -> None:
        self.launch_worker(name, **more_env)
        await self._ready(name)

    def launch_worker(self, name: str, **more_env: str) -> None:
        """Start a worker without waiting until it is ready: one that is to die may do so before."""
        port = self._port(f"{name} metrics")
        env = {"OKANE_METRICS_PORT": str(port), **more_env}
        self._launch(name, ["worker", "--name", name], env, answers_http(port, "/healthz"))

    async def start_console(self, **more_env: str) -> str:
        """Start a console on a port of its own, and return its address."""
        port = self._port("console")
        ports = {"OKANE_CONSOLE_PORT": str(port), "OKANE_METRICS_PORT": str(self._port("console metrics"))}
        await self._start("console", ["console"], ports | more_env, answers_http(port, "/healthz"))
        return f"http://127.0.0.1:{port}"

    async def start_dispatcher(self, name: str = "d1", **more_env: str) -> None:
        self.launch_dispatcher(name, **more_env)
        await self._ready(name)

    def launch_dispatcher(self, name: str = "d1", **more_env: str) -> None:
        """Start a dispatcher that may send to this machine, without waiting until it is ready."""
        port = self._port(f"{name} metrics")
        env = {"OKANE_METRICS_PORT": str(port), "OKANE_WEBHOOK_MASTER": MASTER, **more_env}
        allow = {"OKANE_WEBHOOK_ALLOW": "127.0.0.0/8"}
        self._launch(name, ["dispatch", "--name", name], allow | env, answers_http(port, "/healthz"))

    async def _start(self, name: str, arguments: list[str], env: Mapping[str, str], probe: Callable[[], bool]) -> None:
        self._launch(name, arguments, env, probe)
        await self._ready(name)

    def _launch(self, name: str, arguments: list[str], env: Mapping[str, str], probe: Callable[[], bool]) -> None:
        process = ForkedOkaneProcess(
            name=name,
            arguments=arguments,
            env={**self.env, **env},
            log=self._folder / f"{name}.log",
            probe=probe,
            drain_s=10,
        )
        self._processes[name] = process
        process.launch()  # in this thread, which outlives it

    async def _ready(self, name: str) -> None:
        process = self._processes[name]
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(process.ready):
                process.check_alive()
                await asyncio.sleep(0.05)

    def _port(self, what: str) -> int:
        if what not in self._ports:
            self._ports[what] = free_port(besides=self._ports.values())
        return self._ports[what]

    def pid(self, name: str) -> int:
        child = self._processes[name].child
        assert child is not None
        return child.pid

    def exit_code(self, name: str) -> int | None:
        child = self._processes[name].child
        return None if child is None else child.exit_code()

    def signal(self, name: str, number: signal.Signals) -> None:
        os.kill(self.pid(name), number)

    async def killed(self, name: str, *, within_s: float = 90) -> None:
        """Wait until a process has been ended by kill -9."""
        child = self._processes[name].child
        assert child is not None
        async with asyncio.timeout(within_s):
            while child.exit_code() is None:
                await asyncio.sleep(0.02)
        assert child.exit_code() == -signal.SIGKILL, self._processes[name].last_lines()

    async def kill(self, name: str) -> None:
        """kill -9."""
        await asyncio.to_thread(self._processes[name].kill)

    async def stop(self, name: str) -> int:
        """SIGTERM, and its exit code."""
        await asyncio.to_thread(self._processes[name].stop)
        child = self._processes[name].child
        assert child is not None
        code = child.exit_code()
        assert code is not None
        return code

    async def stop_all(self) -> None:
        for name, process in reversed(self._processes.items()):
            child = process.child
            if child is not None and child.exit_code() is None:
                self.signal(name, signal.SIGCONT)
                await asyncio.to_thread(process.stop)

    def log(self, name: str) -> list[dict[str, Any]]:
        """The events a process has logged."""
        lines = (self._folder / f"{name}.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    async def post(self, key: str, amount: int = 440) -> tuple[int, dict[str, Any]]:
        """One POST; status 0 if the connection broke."""
        body = {"amount": amount, "idempotency_key": key}
        try:
            async with self._http.post(f"{self.url}/v1/payments", json=body) as response:
                return response.status, await response.json(content_type=None)
        except (aiohttp.ClientError, OSError):
            return 0, {}

    async def accepted(self, key: str, amount: int = 440) -> str:
        """POST one payment, repeated with its key until it is taken. Its id."""
        return str((await self.client.pay(NewPayment(amount=amount, idempotency_key=key))).payment.id)

    async def pay(
        self, count: int, *, prefix: str = "k", pause_s: float = 0.0, amounts: Sequence[int] = (440, 5_000, 20_000)
    ) -> list[str]:
        """POST `count` payments, of these amounts in turn: by default over all lanes. Their ids."""

        async def one(number: int) -> str:
            await asyncio.sleep(number * pause_s)
            return await self.accepted(f"{prefix}-{number}", amounts[number % len(amounts)])

        return await asyncio.gather(*(one(number) for number in range(count)))

    async def payment(self, payment_id: str) -> dict[str, Any]:
        async with self._http.get(f"{self.url}/v1/payments/{payment_id}") as response:
            return dict((await response.json())["payment"])

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """One request; its status and answer."""
        async with self._http.request(method, self.url + path, json=body) as response:
            return response.status, dict(await response.json(content_type=None))

    async def hold(self, key: str, amount: int = 440, *, within_s: float = 30) -> str:
        """POST one payment whose money is only held, and wait until it is. Its id."""
        body = {"amount": amount, "idempotency_key": key, "capture_method": "manual"}
        status, answer = await self.ask("POST", "/v1/payments", body)
        assert status == 202, answer
        payment_id = str(answer["payment"]["id"])
        async with asyncio.timeout(within_s):
            while (await self.payment(payment_id))["status"] != "authorized":
                await asyncio.sleep(0.05)
        return payment_id

    async def refund(self, payment_id: str, amount: int, key: str) -> str:
        """Request a refund. Its id."""
        body = {"payment": payment_id, "amount": amount, "idempotency_key": key}
        status, answer = await self.ask("POST", "/v1/refunds", body)
        assert status in (200, 202), answer
        return str(answer["refund"]["id"])

    async def operations(self, payment_id: str) -> list[dict[str, Any]]:
        """The captures, voids and refunds of a payment, oldest first."""
        _, answer = await self.ask("GET", f"/v1/payments/{payment_id}/operations")
        return list(answer["operations"])

    async def moved(self, payment_ids: Iterable[str], *, within_s: float = 30) -> Counter[tuple[str, str]]:
        """Wait until all operations of these payments are at rest; how many of which kind ended in which status."""
        async with asyncio.timeout(within_s):
            while True:
                found = [one for payment_id in payment_ids for one in await self.operations(payment_id)]
                counts = Counter((one["kind"], one["status"]) for one in found)
                if not any(status in OPEN_OPERATIONS for _, status in counts):
                    return counts
                await asyncio.sleep(0.05)

    async def executed(self) -> Counter[tuple[str, str]]:
        """Count the operations that the provider has executed, by payment and kind."""
        async with self._http.get(f"{self.provider_url}/operations") as response:
            lines = [json.loads(line) for line in (await response.text()).splitlines()]
        return Counter((line["payment_id"], line["kind"]) for line in lines if line["status"] != "failed")

    async def control_provider(self, **behaviour: object) -> None:
        """Change the behaviour of the provider from its next call on."""
        async with self._http.put(f"{self.provider_url}/control", json=behaviour) as response:
            assert response.status == 200, await response.text()

    async def settled(self, ids: Iterable[str], *, within_s: float = 30) -> Counter[str]:
        """Wait until all of these are at rest; how many ended in which status."""
        open_, counts = set(ids), Counter[str]()
        try:
            async with asyncio.timeout(within_s):
                while open_:
                    for payment_id in list(open_):
                        status = (await self.payment(payment_id))["status"]
                        if status in TERMINAL or status == "needs_review":
                            counts[status] += 1
                            open_.discard(payment_id)
                    await asyncio.sleep(0.05)
        except TimeoutError:
            left = [await self.payment(payment_id) for payment_id in list(open_)[:3]]
            raise AssertionError(f"{len(open_)} payments not settled, {counts} were; among them {left}") from None
        return counts

    async def captures(self) -> Counter[str]:
        """Count the charges of each payment in the provider's journal."""
        return Counter(line["payment_id"] for line in await self.journal() if line["status"] == "captured")

    async def journal(self) -> list[dict[str, Any]]:
        """The lines of the provider's journal."""
        async with self._http.get(f"{self.provider_url}/journal") as response:
            return [json.loads(line) for line in (await response.text()).splitlines()]

    async def check(self, ids: Iterable[str]) -> None:
        """Check the books, and that Redis is empty again."""
        await self.check_books(ids)
        await self.at_rest()

    async def check_books(self, ids: Iterable[str]) -> None:
        """Check that every success has exactly one charge, and failures have none."""
        captures = await self.captures()
        for payment_id in ids:
            payment = await self.payment(payment_id)
            assert captures[payment_id] == (1 if payment["status"] == "success" else 0), payment

    async def at_rest(self, *, within_s: float = 10) -> None:
        """Wait until nothing is left in Redis but dead letters."""
        stats: StreamStats | None = None
        try:
            async with asyncio.timeout(within_s):
                for name, family in (
                    (self.stream, payments_stream),
                    (f"{self.stream}:operations", operations_stream),
                ):
                    while not is_empty(stats := await read_broker(self._redis_url, stream=name, family=family)):
                        await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"Redis is not at rest: {stats}") from None

    def metrics_url(self, process: str) -> str:
        return f"http://127.0.0.1:{self._ports[f'{process} metrics']}"

    async def metric(self, process: str, sample: str, path: str = "/metrics") -> float:
        """One sample from a process's /metrics, 0 if it is not there."""
        async with self._http.get(self.metrics_url(process) + path) as response:
            lines = (await response.text()).splitlines()
        return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{sample} ")), 0.0)


@asynccontextmanager
async def running(folder: Path, database_url: str, redis_url: str) -> AsyncIterator[System]:
    """A system with nothing started yet; everything that is started in the block is ended after it."""
    folder.mkdir(parents=True, exist_ok=True)
    timeout = aiohttp.ClientTimeout(total=15)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=200)) as http:
        system = System(folder=folder, database_url=database_url, redis_url=redis_url, http=http)
        try:
            async with system.client:
                yield system
        finally:
            await system.stop_all()
