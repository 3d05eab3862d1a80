"""Routes over two providers, in real processes: away, lost answers, a file that changes, soft declines."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

from okane.client import NewPayment
from okane.local.ports import free_port
from tests.flow.stripe_account import stripe_account
from tests.flow.system import System

ALWAYS = ("--unavailable", "0", "--decline", "0")


def providers(system: System, other_port: int, routes: str) -> str:
    """Return a providers file with the provider of the system, and another one on a port."""
    return f"""
default = ["mock"]
[providers.mock]
kind = "okane_http"
base_url = "{system.provider_url}"
timeout = "1s"
[providers.other]
kind = "okane_http"
base_url = "http://127.0.0.1:{other_port}"
timeout = "1s"
{routes}
"""


OTHER_FIRST = '[[routes]]\ncurrency = "USD"\nuse = ["other", "mock"]\n'


@contextlib.asynccontextmanager
async def swallowing() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A provider that takes requests and never answers. Its port, and the first lines of the requests."""
    seen: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            seen.append(await reader.readuntil(b"\r\n"))
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], seen


async def test_payments_of_a_route_go_to_the_next_candidate_while_the_first_is_away(
    system: System, tmp_path: Path
) -> None:
    path = tmp_path / "providers.toml"
    system.env |= {"OKANE_PROVIDERS_FILE": str(path)}
    path.write_text(providers(system, free_port(), OTHER_FIRST))
    await system.start("w1", provider=ALWAYS)
    ids = await system.pay(30)
    assert await system.settled(ids) == Counter(success=30)
    assert {(await system.payment(payment_id))["provider"] for payment_id in ids} == {"mock"}
    await system.check(ids)


async def test_a_payment_whose_answer_was_lost_stays_with_its_provider(system: System, tmp_path: Path) -> None:
    path = tmp_path / "providers.toml"
    system.env |= {"OKANE_PROVIDERS_FILE": str(path)}
    async with swallowing() as (port, seen):
        path.write_text(providers(system, port, OTHER_FIRST))
        await system.start("w1", provider=ALWAYS)
        [payment_id] = await system.pay(1)
        async with asyncio.timeout(30):
            while not any(line.startswith(b"GET") for line in seen):  # the look-up
                await asyncio.sleep(0.05)
        payment = await system.payment(payment_id)
        assert (payment["status"] in {"unknown", "processing"}, payment["provider"]) == (True, "other")
        assert await system.journal() == []
        # Payments that no call was made for go their way meanwhile.
        (tmp_path / "new.toml").write_text(providers(system, port, ""))
        (tmp_path / "new.toml").rename(path)
        async with asyncio.timeout(30):
            while not any(line["event"] == "providers_file_changed" for line in system.log("api")):
                await asyncio.sleep(0.05)
        ids = await system.pay(3, prefix="later")
        assert await system.settled(ids) == Counter(success=3)
        await system.check_books([*ids, payment_id])


async def test_a_soft_decline_is_closed_at_stripe_before_the_next_candidate_charges_though_a_worker_dies_between(
    system: System, tmp_path: Path
) -> None:
    lease = system.env["VISIBILITY_TIMEOUT"]
    async with stripe_account(system, tmp_path) as account:
        account.declines = True
        system.env["VISIBILITY_TIMEOUT"] = lease
        path = tmp_path / "providers.toml"
        route = '[[routes]]\nuse = ["stripe", "mock"]\nfallback = "soft_decline"\n'
        mock = f'[providers.mock]\nkind = "okane_http"\nbase_url = "{system.provider_url}"\ntimeout = "1s"\n'
        path.write_text(path.read_text() + 'timeout = "1s"\nconsistency_lag = "1s"\n' + mock + route)
        await system.start(provider=ALWAYS)
        await system.start_worker("w1", OKANE_FAILPOINT="charge.before_settle:kill")
        new = NewPayment(amount=440, idempotency_key="k", payment_method="pm_card_visa")
        payment_id = str((await system.client.pay(new)).payment.id)
        await system.killed("w1")
        assert [one["status"] for one in account.intents.values()] == ["canceled"]
        assert await system.journal() == []
        await system.start_worker("w2")
        assert await system.settled([payment_id]) == Counter(success=1)
        assert ((await system.payment(payment_id))["provider"], account.calls["cancel"]) == ("mock", 2)
        assert [one["status"] for one in account.intents.values()] == ["canceled"]
        await system.check([payment_id])
