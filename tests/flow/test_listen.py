"""`okane listen` beside real processes: an API that is killed, a receiver that is away, and nothing lost or skipped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from okane.client import NewEndpoint, WebhookEvent, verify
from okane.local.ports import free_port
from tests.flow.system import System

MASTER = "m" * 64

pytestmark = pytest.mark.timeout(180)


@dataclass(slots=True)
class Receiver:
    """A receiver that verifies every request with the client's verifier."""

    port: int
    secret: str = field(default="", repr=False)
    seen: list[WebhookEvent] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)  # the next ones; then 200
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _runner: web.AppRunner | None = None

    async def take(self, request: web.Request) -> web.Response:
        event = verify(request.headers, await request.read(), self.secret)
        status = self.answers.pop(0) if self.answers else 200
        async with self.changed:
            if status == 200:
                self.seen.append(event)
            self.changed.notify_all()
        return web.Response(status=status)

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/hook", self.take)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def has(self, payments: list[str], *, within_s: float = 60) -> None:
        """Wait until an event of each of these payments was taken."""
        async with asyncio.timeout(within_s), self.changed:
            await self.changed.wait_for(lambda: set(payments) <= self.payments())

    def payments(self) -> set[str]:
        return {str(event.payment.id) for event in self.seen if event.payment is not None}

    def versions(self) -> dict[str, list[int]]:
        """The versions of each payment in the order in which they first arrived."""
        found: dict[str, list[int]] = defaultdict(list)
        for event in self.seen:
            assert event.payment is not None
            versions = found[str(event.payment.id)]
            if event.payment.version not in versions:
                versions.append(event.payment.version)
        return found


class Listening:
    """A running `okane listen --json`, and the lines that it has printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self._changed = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            async with self._changed:
                self.lines.append(json.loads(line))
                self._changed.notify_all()

    async def line_with(self, **members: Any) -> dict[str, Any]:
        """Return the first line with these members, once it is printed."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.lines if members.items() <= line.items()]

        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(lambda: bool(found()))
        return found()[0]

    async def line_that_has(self, member: str) -> dict[str, Any]:
        """Return the first line with a member of this name, once it is printed."""
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(lambda: any(member in line for line in self.lines))
        return next(line for line in self.lines if member in line)

    async def interrupt(self) -> dict[str, Any]:
        """Ctrl-C; return the last line."""
        self.process.send_signal(signal.SIGINT)
        assert await self.process.wait() == 130
        await self._reading
        return self.lines[-1]


@contextlib.asynccontextmanager
async def listening(system: System, receiver: Receiver, *arguments: str, folder: Path) -> AsyncIterator[Listening]:
    target = f"127.0.0.1:{receiver.port}/hook"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "okane", "listen", "--json", "--url", system.url, "--forward-to", target, *arguments),
        env={**os.environ},
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        one = Listening(process)
        receiver.secret = (await one.line_that_has("secret"))["secret"]
        yield one
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    one = Receiver(free_port())
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
async def hooked(system: System) -> System:
    """A system whose API can sign."""
    system.env["OKANE_WEBHOOK_MASTER"] = MASTER
    return system


async def test_no_event_is_lost_while_the_api_is_killed_and_the_receiver_is_away(
    hooked: System, receiver: Receiver, tmp_path: Path
) -> None:
    await hooked.start("w")
    async with listening(hooked, receiver, folder=tmp_path) as listen:
        ids = await hooked.pay(20, prefix="before")
        await receiver.has(ids)
        paying = asyncio.create_task(hooked.pay(60, prefix="meanwhile", pause_s=0.05))
        await hooked.kill("api")
        await listen.line_with(api="lost")
        await hooked.start_api()
        await listen.line_with(api="back")
        ids += await paying
        await receiver.stop()
        ids += await hooked.pay(20, prefix="away")
        await listen.line_with(reason="connection refused")
        await receiver.start()
        await receiver.has(ids)
    assert receiver.payments() == set(ids)
    assert all(versions == sorted(versions) for versions in receiver.versions().values())


async def test_a_second_run_goes_on_where_the_first_has_stopped(
    hooked: System, receiver: Receiver, tmp_path: Path
) -> None:
    await hooked.start("w")
    async with listening(hooked, receiver, folder=tmp_path) as listen:
        first = await hooked.pay(3, prefix="first")
        await receiver.has(first)
        forwarded = {event.id for event in receiver.seen}  # a payment that is tried again has more of them later
        # Its page begins behind theirs.
        await receiver.has(await hooked.pay(1, prefix="next"))
        secret, last = receiver.secret, await listen.interrupt()
    between = await hooked.pay(3, prefix="between")
    await hooked.settled(between)
    receiver.seen.clear()
    async with listening(hooked, receiver, "--after", last["after"], folder=tmp_path):
        await receiver.has(between)
        assert receiver.secret == secret
    assert not forwarded & {event.id for event in receiver.seen}


async def test_events_are_followed_across_a_restart_of_the_api(hooked: System, tmp_path: Path) -> None:
    await hooked.start("w")
    await hooked.client.webhooks.create(NewEndpoint(url=None, types=["*"]))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "okane", "events", "--follow", "--since", "1h", "--json", "--url", hooked.url),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        for prefix in ("before", "after"):
            left = set(await hooked.pay(3, prefix=prefix))
            async with asyncio.timeout(60):
                while left:
                    left.discard(json.loads(await process.stdout.readline())["data"]["payment"]["id"])
            await hooked.kill("api")
            await hooked.start_api()
    finally:
        process.kill()
        await process.wait()


async def test_an_event_that_the_receiver_refuses_is_tried_again_and_then_skipped_in_sight(
    hooked: System, receiver: Receiver, tmp_path: Path
) -> None:
    await hooked.start("w", provider=("--unavailable", "0", "--decline", "0"))
    receiver.answers = [500, 404]
    async with listening(hooked, receiver, "--types", "payment.succeeded", folder=tmp_path) as listen:
        [payment] = await hooked.pay(1)
        await receiver.has([payment])
        assert (await listen.line_with(status=500))["again_s"] > 0
        assert (await listen.line_with(status=200))["attempt"] == 3
        assert {line.get("type", "payment.succeeded") for line in listen.lines} == {"payment.succeeded"}
