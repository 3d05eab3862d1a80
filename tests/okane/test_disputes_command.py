"""`okane disputes` against a served API: what it prints for people and for programs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner, Result

from okane.cli import app
from okane.dispute import DisputeStatus
from okane.errors import SetupError
from okane.payment import Payment, Status
from okane.store import ProviderEvent
from okane.store.disputes import DisputeStore, FetchedDispute
from tests.okane.notice_books import STRIPE, Books, books
from tests.okane.served_api import serve_api

__all__ = ["books"]

DUE_BY = datetime(2026, 12, 9, 23, 59, 59, tzinfo=UTC)

Disputes = Callable[..., Awaitable[Result]]


@dataclass
class Disputed:
    """The disputes of one payment, written as a worker writes them."""

    books: Books
    payment: Payment
    store: DisputeStore
    notices: int = 0

    async def write(self, ref: str, status: DisputeStatus, *, reason: str | None = "fraudulent") -> None:
        self.notices += 1
        event = ProviderEvent(f"evt_{self.notices}", "charge.dispute.created", None, None, dispute_ref=ref)
        await self.books.events.take(STRIPE, [event])
        [due] = await self.store.claim([STRIPE])
        found = FetchedDispute(self.payment.id, 1440, "USD", status, reason, DUE_BY)
        assert (await self.store.write(due, found)).written


@pytest.fixture
async def disputed(books: Books) -> AsyncIterator[Disputed]:
    store = DisputeStore(books.url, actor="w1")
    yield Disputed(books, await books.payment(Status.SUCCESS), store)
    await store.aclose()


@pytest.fixture
async def disputes(
    books: Books, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Disputes]:
    """Run `okane disputes WORDS` beside an API that is in this process."""
    monkeypatch.chdir(tmp_path)
    async for api in serve_api(books.url, redis_url, providers=(STRIPE,)):

        async def run(*words: str, url: str = api.url) -> Result:
            return await asyncio.to_thread(CliRunner().invoke, app, ["disputes", *words, "--url", url])

        yield run


async def text(disputes: Disputes, *words: str) -> str:
    result = await disputes(*words)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


async def listed(disputes: Disputes, *words: str) -> Any:
    return json.loads(await text(disputes, "ls", *words, "--json"))


async def refused(disputes: Disputes, *words: str) -> str:
    result = await disputes(*words)
    assert isinstance(result.exception, SetupError), (result.output, result.exception)
    return str(result.exception)


async def test_disputes_are_listed_and_shown_for_people_and_programs(disputed: Disputed, disputes: Disputes) -> None:
    assert await text(disputes, "ls") == "there are no such disputes\n"
    assert await listed(disputes) == {"disputes": [], "more": False}
    await disputed.write("dp_1", DisputeStatus.NEEDS_RESPONSE)
    [one] = (await listed(disputes))["disputes"]
    assert (one["payment"], one["amount"], one["status"]) == (str(disputed.payment.id), 1440, "needs_response")
    assert one["due_by"] == DUE_BY.isoformat()
    first, second = (await text(disputes, "ls")).splitlines()
    assert first.startswith(f"{one['id']}         1,440 USD  needs_response ")
    assert first.endswith("stripe dp_1")
    assert second == f"    payment {disputed.payment.id}  fraudulent  evidence until 2026-12-09 23:59:59"
    assert json.loads(await text(disputes, "show", one["id"], "--json")) == one
    shown = await text(disputes, "show", one["id"])
    assert shown.startswith(f"id               {one['id']}\n")
    assert "due_by           2026-12-09T23:59:59" in shown

    await disputed.write("dp_1", DisputeStatus.LOST, reason=None)
    assert (await text(disputes, "ls")).splitlines()[1] == f"    payment {disputed.payment.id}"
    assert "reason" not in await text(disputes, "show", one["id"])


async def test_the_list_is_filtered_and_says_when_it_has_more(disputed: Disputed, disputes: Disputes) -> None:
    for number, status in enumerate((DisputeStatus.WON, DisputeStatus.LOST, DisputeStatus.NEEDS_RESPONSE)):
        await disputed.write(f"dp_{number}", status)

    async def refs(*words: str) -> list[str]:
        return [one["provider_ref"] for one in (await listed(disputes, *words))["disputes"]]

    assert await refs() == ["dp_2", "dp_1", "dp_0"]
    assert await refs("--status", "won", "--status", "lost") == ["dp_1", "dp_0"]
    assert await refs("--provider", STRIPE, "--payment", str(disputed.payment.id)) == ["dp_2", "dp_1", "dp_0"]
    assert await refs("--provider", "payu") == await refs("--payment", str(uuid4())) == []
    page = await listed(disputes, "--limit", "2")
    assert (len(page["disputes"]), page["more"]) == (2, True)
    assert (await text(disputes, "ls", "--limit", "2")).endswith("these are the newest 2; more: --limit\n")
    assert (await listed(disputes, "--limit", "3"))["more"] is False


async def test_what_a_provider_says_reaches_no_terminal_as_a_command(disputed: Disputed, disputes: Disputes) -> None:
    await disputed.write("dp_1", DisputeStatus.NEEDS_RESPONSE, reason="\x1b[31m[bold]red")
    [one] = (await listed(disputes))["disputes"]
    assert one["reason"] == "\x1b[31m[bold]red"
    for output in (await text(disputes, "ls"), await text(disputes, "show", one["id"])):
        assert "�[31m[bold]red" in output
        assert "\x1b" not in output


async def test_what_is_wrong_is_said_in_a_line(disputes: Disputes) -> None:
    assert "dispute_not_found" in await refused(disputes, "show", str(uuid4()))
    assert "is not a dispute's id: see `okane disputes ls`" in await refused(disputes, "show", "dp_1")
    assert "is not a payment's id" in await refused(disputes, "ls", "--payment", "x")
    assert (await disputes("ls", "--status", "open")).exit_code == 2
    assert (await disputes("ls", "--limit", "0")).exit_code == 2
