"""`okane dead --operations` and `okane review` of captures, voids and refunds, as programs over real servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from typer.testing import CliRunner, Result

from okane.cli import app
from okane.errors import SetupError, StatusConflict
from okane.lanes import operations_stream
from okane.operation import Operation, OperationKind, OperationStatus
from okane.payment import Payment
from okane.store import PaymentStore
from okane.store.operations import OperationStore
from streams import Consumer, Dead, DeadLetters, Inspector, Message, Outcome, Producer, connect
from tests.okane.stored_operations import (
    CAPTURE,
    REFUND,
    VOID,
    asked,
    assert_books_agree,
    authorized,
    charged,
    claim_of,
    outcome,
)
from tests.okane.stored_payments import GRACE, LEASE

Command = Callable[..., Awaitable[Result]]


@pytest.fixture
async def operations(database_url: str) -> AsyncIterator[OperationStore]:
    store = OperationStore(database_url, actor="test", lease=LEASE, grace=GRACE)
    yield store
    await store.aclose()


@pytest.fixture
def stream_name() -> str:
    return f"test-{uuid4()}:payments"


@pytest.fixture
def command(
    database_url: str, redis_url: str, stream_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("OKANE_STREAM", stream_name)

    async def run(*words: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, list(words))

    return run


async def text(command: Command, *words: str) -> str:
    result = await command(*words)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


async def answered(command: Command, *words: str) -> Any:
    return json.loads(await text(command, *words, "--json"))


async def ended(operations: OperationStore, operation: Operation, status: OperationStatus, **more: object) -> UUID:
    """Claim an operation and settle it with this status."""
    claim = await claim_of(operations, operation.id)
    assert await operations.settle(outcome(claim.operation, status, **more)) is not None
    return operation.id


async def spent_refund(payments: PaymentStore, operations: OperationStore, key: str) -> UUID:
    payment = await charged(payments, key)
    refund = (await operations.request(asked(payment.id, REFUND, key=f"r-{key}"))).operation
    return await ended(operations, refund, OperationStatus.FAILED_FINAL, event="spent", reason="HTTP 503")


async def test_dead_refunds_are_listed_page_by_page_and_shown(
    command: Command, payments: PaymentStore, operations: OperationStore
) -> None:
    assert await text(command, "dead", "ls", "--operations") == "no dead captures, voids or refunds\n"
    ids = [str(await spent_refund(payments, operations, key)) for key in ("k-1", "k-2", "k-3")]
    first = await answered(command, "dead", "ls", "--operations", "--limit", "2")
    assert ([one["operation_id"] for one in first["operations"]], first["total"]) == ([ids[2], ids[1]], 3)
    place = first["before"]
    second = await answered(command, "dead", "ls", "--operations", "--limit", "2", "--before", place)
    assert ([one["operation_id"] for one in second["operations"]], second["before"]) == ([ids[0]], None)
    listed = await text(command, "dead", "ls", "--operations")
    assert f"{ids[0]}  refund           440 USD  failed_final 20" in listed
    assert listed.endswith("3 of 3\n")
    assert await text(command, "dead", "ls") == (
        "no dead letters\ncaptures, voids and refunds: 3 more (okane dead ls --operations)\n"
    )
    assert (await answered(command, "dead", "ls"))["operations"] == 3
    shown = await answered(command, "dead", "show", ids[0])
    assert [event["event"] for event in shown["events"]] == ["requested", "claimed", "spent"]
    assert (shown["kind"], shown["reason"]) == ("refund", "HTTP 503")
    assert "spent" in await text(command, "dead", "show", ids[0])


async def test_dead_refunds_are_replayed_with_their_reservation_and_purged(
    command: Command,
    payments: PaymentStore,
    operations: OperationStore,
    database_url: str,
    redis_url: str,
    stream_name: str,
) -> None:
    ids = [await spent_refund(payments, operations, key) for key in ("k-1", "k-2", "k-3")]
    stream = operations_stream(stream_name.replace(":payments", ":operations"))
    async with connect(redis_url) as redis:
        producer = Producer(redis, stream)
        for one in ids:
            await producer.publish(one.bytes, lane="refund")

        async def give_up(_message: Message) -> Outcome:
            return Dead("HTTP 503")

        await Consumer(redis, stream, group="workers", name="w", handler=give_up).run_once()
        await producer.aclose()
        assert (await answered(command, "dead", "replay", "--operations", "--all", "--dry-run"))["retried"] == 3
        # What the second moves was refunded by another meanwhile.
        taken = await operations.get(ids[1])
        await operations.request(asked(taken.payment_id, REFUND, key="another"))
        dry = await answered(command, "dead", "replay", "--operations", str(ids[0]), str(ids[1]), "--dry-run")
        assert dry == {"retried": 1, "kept": 1, "dry_run": True}
        done = await answered(command, "dead", "replay", "--operations", str(ids[0]), str(ids[1]))
        assert done == {"retried": 1, "kept": 1, "dry_run": False}
        statuses = [(await operations.get(one)).status for one in ids]
        assert statuses == ["pending", "failed_final", "failed_final"]
        await status_shows_them(command)
        stats = await Inspector(redis, stream, group="workers").stats()
        assert {lane.lane: lane.length for lane in stats.lanes}["refund"] == 1  # the wake-up
        letters = (await DeadLetters(redis, stream).list(9)).letters
        assert {letter.body for letter in letters} == {one.bytes for one in ids[1:]}
        assert await answered(command, "dead", "purge", "--operations", "--all", "--yes") == {"purged": 2}
        assert (await DeadLetters(redis, stream).list(9)).letters == ()
    assert (await answered(command, "dead", "ls", "--operations"))["total"] == 0
    missing = await command("dead", "replay", "--operations", str(ids[1]))
    assert isinstance(missing.exception, SetupError)
    assert "no dead capture, void or refund" in str(missing.exception)
    nonsense = await command("dead", "purge", "--operations", "x")
    assert "is not the id of a capture, void or refund" in str(nonsense.exception)
    await assert_books_agree(database_url)


async def test_what_needs_a_review_is_listed_shown_and_decided(
    command: Command, payments: PaymentStore, operations: OperationStore, database_url: str
) -> None:
    assert await text(command, "review", "ls", "--operations") == "nothing needs a review\n"
    ids = {}
    for kind, held in ((CAPTURE, authorized), (VOID, authorized), (REFUND, charged)):
        payment = await held(payments, f"k-{kind}")
        requested = (await operations.request(asked(payment.id, kind, key=f"o-{kind}"))).operation
        ids[kind] = str(await ended(operations, requested, OperationStatus.NEEDS_REVIEW, reason="no answer"))
    assert await text(command, "review", "ls") == (
        "no payment needs a review\ncaptures, voids and refunds: 3 (okane review ls --operations)\n"
    )
    found = await answered(command, "review", "ls", "--operations")
    assert {one["operation_id"] for one in found["operations"]} == set(ids.values())
    assert (await answered(command, "review", "ls", "--operations", "--account", "acme"))["operations"] == []
    page = await answered(command, "review", "ls", "--operations", "--limit", "1")
    rest = await answered(command, "review", "ls", "--operations", "--before", page["before"])
    assert len(rest["operations"]) == 2
    # It stays until it is decided: nothing else lists it.
    assert await answered(command, "dead", "purge", "--operations", "--all", "--yes") == {"purged": 0}
    assert (await answered(command, "review", "show", ids[CAPTURE]))["provider_key"] == ids[CAPTURE]

    decision = ("review", "resolve", ids[CAPTURE], "--as", "success", "--reason", "captured, says the dashboard")
    changed = await command(*decision, "--version", "0")
    assert isinstance(changed.exception, StatusConflict)
    decided = await answered(command, *decision, "--provider-ref", "ch_1")
    assert (decided["kind"], decided["status"], decided["provider_ref"]) == ("capture", "success", "ch_1")
    assert await answered(command, *decision) == decided  # a repeat changes nothing
    captured = await payments.get(UUID(decided["payment_id"]), account_id="default")
    assert (captured.status, captured.captured_minor) == ("success", 440)
    for kind in (VOID, REFUND):
        words = ("review", "resolve", ids[kind], "--as", "failed_final", "--reason", "not there")
        assert await text(command, *words) == f"{kind} {ids[kind]} of default is failed_final\n"
    opposite = await command("review", "resolve", ids[VOID], "--as", "success", "--reason", "it was")
    assert isinstance(opposite.exception, StatusConflict)
    assert await text(command, "review", "ls") == "nothing needs a review\n"
    await assert_books_agree(database_url)


async def test_a_dry_run_of_replayed_operations_says_exactly_what_the_run_does(
    command: Command, payments: PaymentStore, operations: OperationStore
) -> None:
    paid, held, changed = (
        await charged(payments, "paid"),
        await authorized(payments, "held"),
        await charged(payments, "x"),
    )

    async def spent(payment: Payment, kind: OperationKind, **more: object) -> UUID:
        operation = (await operations.request(asked(payment.id, kind, key=str(uuid4()), **more))).operation
        return await ended(operations, operation, OperationStatus.FAILED_FINAL, event="spent", reason="HTTP 503")

    # Of 440: the second does not fit after the first, the third does, the fourth takes the rest.
    dead = [await spent(paid, REFUND, amount_minor=amount) for amount in (300, 200, 100, 40)]
    dead += [await spent(held, kind) for kind in (CAPTURE, VOID)]  # one at a time
    review = (await operations.request(asked(changed.id, REFUND))).operation
    dead.append(await ended(operations, review, OperationStatus.NEEDS_REVIEW, event="needs_review", reason="open"))
    run = ("dead", "replay", "--operations", "--all")
    dry, limited = await text(command, *run, "--dry-run"), await answered(command, *run, "--dry-run", "--limit", "2")
    assert dry == "would retry 4, 3 kept: they need a review, or what they move is no longer there\n"
    assert limited == {"retried": 1, "kept": 1, "dry_run": True}
    twice = await answered(command, *run[:-1], str(dead[0]), str(dead[0]), "--dry-run")
    assert twice == {"retried": 1, "kept": 1, "dry_run": True}
    assert [(await operations.get(one)).status for one in dead] == [*["failed_final"] * 6, "needs_review"]
    assert await text(command, *run) == dry.replace("would retry", "retried")
    statuses = [(await operations.get(one)).status for one in dead]
    assert [one for one, status in zip(dead, statuses, strict=True) if status == "pending"] == [
        *(dead[0], dead[2], dead[3], dead[4])
    ]


async def status_shows_them(command: Command) -> None:
    """One that was replayed and has its wake-up, one that was requested without, and two dead ones."""
    seen = (await answered(command, "status"))["operations"]
    assert [(lane["lane"], lane["length"]) for lane in seen["lanes"]] == [("capture", 0), ("void", 0), ("refund", 1)]
    assert (seen["dead"], seen["delayed"], [one["name"] for one in seen["consumers"]]) == (2, 0, ["w"])
    assert (seen["waiting"]["refund"]["pending"], seen["waiting"]["refund"]["needs_review"]) == (2, 0)
    assert seen["oldest_due_s"] > 0
    shown = await text(command, "status")
    assert "operations  dead letters 2  oldest due " in shown
    assert ["refund", "1"] in [line.split()[:2] for line in shown.splitlines()]
