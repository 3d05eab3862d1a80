"""`okane payments` and `okane refunds` against a served API: what they print for people and for programs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from okane.cli import app
from okane.errors import SetupError
from okane.operation import OperationStatus
from tests.okane.operated_payments import charged, executed, held
from tests.okane.served_api import Api

Command = Callable[..., Awaitable[Result]]
NOTHING = "0198b2f0-0000-7000-8000-000000000000"


@pytest.fixture
def command(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `okane WORDS` beside an API that is in this process."""
    monkeypatch.chdir(tmp_path)

    async def run(*words: str, url: str = api.url) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, [*words, "--url", url])

    return run


async def answered(command: Command, *words: str) -> Any:
    result = await command(*words, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.output)


async def text(command: Command, *words: str) -> str:
    result = await command(*words)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


async def refused(command: Command, *words: str, **more: str) -> str:
    result = await command(*words, **more)
    assert isinstance(result.exception, SetupError), (result.output, result.exception)
    return str(result.exception)


async def test_held_money_is_captured_or_let_go(api: Api, command: Command) -> None:
    payment_id, other = await held(api), await held(api, "p-2")
    assert "capture_exceeds_authorized" in await refused(command, "payments", "capture", payment_id, "--amount", "441")
    assert "currency_mismatch" in await refused(command, "payments", "capture", payment_id, "--currency", "EUR")
    words = ("payments", "capture", payment_id, "--amount", "300", "--currency", "USD", "--idempotency-key", "c-1")
    made = await answered(command, *words)
    assert (made["kind"], made["amount"], made["created"], made["payment_id"]) == ("capture", 300, True, payment_id)
    assert await text(command, *words) == f"capture {made['id']} of 300 USD is pending (of an earlier request)\n"
    await executed(api, made["id"])
    assert f"payment {other} is authorized: its void is under way" in await text(command, "payments", "void", other)
    [void] = (await answered(command, "payments", "operations", other))["operations"]
    await executed(api, void["id"])
    assert await text(command, "payments", "void", other) == f"payment {other} is canceled\n"
    assert (await answered(command, "payments", "void", other))["status"] == "canceled"
    line = await text(command, "payments", "operations", payment_id)
    assert line.startswith(f"{made['id']}  capture ")
    assert "300 USD  success" in line
    assert "status_conflict" in await refused(command, "payments", "void", payment_id)


async def test_a_refund_is_made_listed_shown_and_decided(api: Api, command: Command) -> None:
    assert await text(command, "refunds", "ls") == "there are no such refunds\n"
    payment_id = await charged(api, amount=440)
    made = await answered(command, "refunds", "create", payment_id, "--amount", "40", "--reason", "returned")
    assert (made["status"], made["amount"], made["reason"], made["created"]) == ("pending", 40, "returned", True)
    assert made["idempotency_key"].startswith("cli-")
    assert f"payment {payment_id}  returned" in await text(command, "refunds", "ls")
    assert (await text(command, "refunds", "show", made["id"])).startswith(f"id               {made['id']}\n")
    await executed(api, made["id"], OperationStatus.FAILED_FINAL, reason="the account\nis closed")
    [listed] = (await answered(command, "refunds", "ls", "--status", "failed_final", "--payment", payment_id))[
        "refunds"
    ]
    assert (listed["id"], listed["last_error"]) == (made["id"], "the account\nis closed")
    assert (await answered(command, "refunds", "retry", made["id"]))["status"] == "pending"
    await executed(api, made["id"], OperationStatus.NEEDS_REVIEW, reason="no answer")
    decision = ("refunds", "resolve", made["id"], "--as", "success", "--reason", "found it", "--provider-ref", "re_1")
    decided = await answered(command, *decision)
    assert (decided["status"], decided["provider_ref"]) == ("success", "re_1")

    rest = await answered(command, "refunds", "create", payment_id)
    assert rest["amount"] == 400
    assert (await answered(command, "refunds", "cancel", rest["id"]))["status"] == "canceled"
    page = await answered(command, "refunds", "ls", "--limit", "1")
    assert ([one["id"] for one in page["refunds"]], page["more"]) == ([rest["id"]], True)
    assert (await text(command, "refunds", "ls", "--limit", "1")).endswith("these are the newest 1; more: --limit\n")
    assert (await answered(command, "refunds", "ls", "--limit", "2"))["more"] is False


async def test_what_is_wrong_is_said_in_a_line(api: Api, command: Command) -> None:
    payment_id = await charged(api)
    assert "currency_mismatch" in await refused(command, "refunds", "create", payment_id, "--currency", "EUR")
    assert "payment_not_found" in await refused(command, "refunds", "create", NOTHING)
    assert "refund_not_found" in await refused(command, "refunds", "show", NOTHING)
    assert "is not a refund's id" in await refused(command, "refunds", "show", "x")
    assert "is not a payment's id" in await refused(command, "payments", "capture", "x")
    assert "currency must be" in await refused(command, "refunds", "create", payment_id, "--currency", "eur")
    assert "--reason" in await refused(
        command, "refunds", "resolve", NOTHING, "--as", "success", "--reason", "4242 4242 4242 4242"
    )
    assert (await command("refunds", "create", payment_id, "--amount", "0")).exit_code == 2
    assert (await command("refunds", "create", payment_id, "--idempotency-key", "a b")).exit_code == 2
    assert (await answered(command, "refunds", "ls"))["refunds"] == []


async def test_without_an_answer_the_key_to_repeat_with_is_told(
    api: Api, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("okane.cli.api_client.PATIENCE_S", 0.0)
    said = await refused(command, "refunds", "create", await charged(api), url="http://127.0.0.1:9")
    assert "it may have been carried out; repeat it with --idempotency-key cli-" in said
