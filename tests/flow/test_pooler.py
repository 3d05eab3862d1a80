"""All of okane behind a PgBouncer in session mode, which is killed under load."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path

import aiohttp

from okane.client import NewEndpoint
from tests.flow.system import MASTER, System, running
from tests.forked_process import run_okane_beside
from tests.okane.pgbouncer import running_pooler
from tests.okane.webhook_receiver import receiving

ALWAYS = ("--unavailable", "0", "--decline", "0")
CONNECTIONS = 120  # more than all processes of this test open


async def okane(system: System, *words: str) -> tuple[int, str]:
    """Run a command over the servers of this system; its exit code and output."""
    done = await run_okane_beside(*words, env={**os.environ, **system.env, "COLUMNS": "200"})
    return done.returncode, done.stdout + done.stderr


async def test_all_of_okane_survives_a_pooler_that_is_killed_under_load(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    with running_pooler(database_url, "session", size=CONNECTIONS) as pooler:
        async with receiving() as receiver, running(tmp_path / "system", pooler.url, redis_url) as system:
            system.env |= {"OKANE_WEBHOOK_MASTER": MASTER, "OKANE_WEBHOOK_ALLOW": "127.0.0.0/8"}
            _, _, console = await asyncio.gather(
                system.start("w1", "w2", provider=(*ALWAYS, "--latency-ms", "20")),
                system.start_dispatcher(),
                system.start_console(),
            )
            hook = NewEndpoint(url=f"{receiver.url}/hook", types=["payment.succeeded"])
            receiver.secrets["/hook"] = (await system.client.webhooks.create(hook)).secret
            ids = await system.pay(10, prefix="before")
            paying = asyncio.ensure_future(system.pay(150, prefix="meanwhile", pause_s=0.02))
            for charged in (30, 70):
                async with asyncio.timeout(60):
                    while len(await system.captures()) < charged:
                        await asyncio.sleep(0.02)
                await asyncio.to_thread(pooler.kill)
                assert not paying.done(), "it was killed under load"
                await asyncio.to_thread(pooler.start)
            ids += await paying
            assert await system.settled(ids, within_s=60) == Counter(success=160)
            await system.check(ids)
            await receiver.until_ids(160)
            assert {one.payment.removeprefix("pay_") for one in receiver.received} == set(ids)

            async with aiohttp.ClientSession() as session, session.get(f"{console}/console/payments") as page:
                assert (page.status, ids[-1] in await page.text()) == (200, True)
            code, said = await okane(system, "doctor")
            assert "in session mode" in said, said
            assert code in (0, 1), said  # the test's servers are not durable
            code, said = await okane(system, "keys", "create", "--account", "shop")
            assert code == 0, said
            code, said = await okane(system, "status", "--json")
            assert (code, '"success": 160' in said) == (0, True), said
