"""Captures and refunds of the real store, in the statement of the day and in its comparison with the provider."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from okane.cli import app
from okane.operation import Operation, OperationStatus
from okane.payment import Payment, Status
from okane.store import PaymentStore
from okane.store.operations import OperationStore
from tests.okane.money_days import Row
from tests.okane.provider_days import Books
from tests.okane.reconciling import Command, document, reconciling
from tests.okane.stored_operations import (
    CAPTURE,
    REFUND,
    asked,
    assert_books_agree,
    authorized,
    charged,
    claim_of,
    done,
    outcome,
    rows,
)
from tests.okane.stored_payments import GRACE, LEASE, accept_one, claimed, new, settlement

S = OperationStatus
EVENTS = {S.UNKNOWN: "unknown", S.FAILED_FINAL: "declined"}


@dataclass
class Desk:
    """The stores, the provider's books, and the command."""

    payments: PaymentStore
    operations: OperationStore
    books: Books
    command: Command

    def row(self, payment: Payment) -> Row:
        """Return the payment as the books take it, with its charge booked."""
        row = Row(accepted=payment.created_at, amount=payment.amount_minor, currency=payment.currency)
        row.id, row.provider_ref = payment.id, payment.provider_ref or payment.attempt_ref
        return row

    async def refund(self, payment: Payment, key: str, status: OperationStatus = S.SUCCESS) -> Operation:
        """Return a refund of 10 in this status."""
        new = asked(payment.id, REFUND, key, amount_minor=10)
        if status is S.SUCCESS:
            return await done(self.operations, new, provider_ref=f"re_{key}")
        requested = await self.operations.request(new)
        if status is not S.NEEDS_REVIEW:
            claim = await claim_of(self.operations, requested.operation.id)
            await self.operations.settle(outcome(claim.operation, status, event=EVENTS[status], delay=LEASE))
        else:
            assert await self.operations.bury(requested.operation.id, reason="killed its workers")
        return await self.operations.get(requested.operation.id)


async def declined(payments: PaymentStore, key: str) -> Payment:
    claim = await claimed(payments, (await accept_one(payments, new(key))).payment.id)
    refused = settlement(claim.payment, Status.FAILED_FINAL, event="declined", decline_code="no", provider="http")
    assert await payments.settle(refused) is not None
    return claim.payment


@pytest.fixture
async def desk(
    database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Desk]:
    books = Books()
    payments = PaymentStore(database_url, actor="test", lease=LEASE, grace=GRACE)
    operations = OperationStore(database_url, actor="test", lease=LEASE, grace=GRACE)
    async with reconciling(database_url, redis_url, books, tmp_path, monkeypatch) as command:
        yield Desk(payments, operations, books, command)
    await payments.aclose()
    await operations.aclose()


async def test_what_the_store_has_captured_and_refunded_is_reported_and_agrees_with_the_provider(desk: Desk) -> None:
    now = datetime.now(UTC)
    today = now.date().isoformat()
    held = await authorized(desk.payments, "held", amount_minor=500)
    capture = await done(desk.operations, asked(held.id, CAPTURE, "c", amount_minor=300), provider_ref="ca_1")
    paid = await charged(desk.payments, "paid")
    kept, back = await desk.refund(paid, "kept"), await desk.refund(paid, "back")
    assert await desk.operations.record_late(outcome(back, S.FAILED_FINAL), once=True) is S.FAILED_FINAL
    held_row, paid_row = desk.row(held), desk.row(paid)
    desk.books.charge(held_row, now, status="authorized")
    desk.books.operation(held_row, "capture", now, id_=capture.id, amount=300, ref="ca_1")
    desk.books.charge(paid_row, now)
    desk.books.operation(paid_row, "refund", now, id_=kept.id, ref="re_kept")
    desk.books.operation(paid_row, "refund", now, id_=back.id, ref="re_back", status="failed", code="account_closed")
    found = document(await desk.command("--json", day=today))
    assert found["differences"] == []
    assert (found["listed"], found["compared"]) == (5, 5)
    report = await asyncio.to_thread(CliRunner().invoke, app, ["report", "--day", today, "--json"])
    assert [(one["kind"], one["count"], one["amount"]) for one in json.loads(report.stdout)["totals"]] == [
        ("charge", 1, 440),
        ("capture", 1, 300),
        ("refund", 2, 20),
        ("refund_reversal", 1, 10),
    ]


async def test_a_refund_that_the_provider_does_not_have_is_missing_there(desk: Desk) -> None:
    now = datetime.now(UTC)
    paid = await charged(desk.payments)
    refund = await desk.refund(paid, "gone")
    desk.books.charge(desk.row(paid), now)
    [difference] = document(await desk.command("--json", day=now.date().isoformat()))["differences"]
    assert (difference["kind"], difference["of"]) == ("missing_there", "refund")
    assert difference["operation_id"] == str(refund.id)


async def test_refunds_under_review_are_decided_and_unknown_ones_are_looked_up_by_a_worker(
    desk: Desk, database_url: str
) -> None:
    now = datetime.now(UTC)
    today = now.date().isoformat()
    paid = await charged(desk.payments)
    made, refused, absent = [await desk.refund(paid, name, S.NEEDS_REVIEW) for name in ("made", "refused", "absent")]
    unknown = await desk.refund(paid, "unknown", S.UNKNOWN)
    row = desk.row(paid)
    desk.books.charge(row, now)
    desk.books.operation(row, "refund", now, id_=made.id, ref="re_made")
    desk.books.operation(row, "refund", now, id_=refused.id, status="failed", code="account_closed")
    desk.books.operation(row, "refund", now, id_=unknown.id, ref="re_unknown")
    expected = {made.id: "resolved", refused.id: "resolved", absent.id: "kept", unknown.id: "woken"}
    for options in (("--resolve", "--dry-run"), ("--resolve",)):
        found = document(await desk.command("--json", *options, day=today))
        assert {one["operation_id"]: one["step"] for one in found["resolutions"]} == {
            str(id_): step for id_, step in expected.items()
        }
        statuses = [(await desk.operations.get(id_)).status for id_ in expected]
        decided = [S.NEEDS_REVIEW, S.NEEDS_REVIEW] if "--dry-run" in options else [S.SUCCESS, S.FAILED_FINAL]
        assert statuses == [*decided, S.NEEDS_REVIEW, S.UNKNOWN]
    assert (await desk.operations.get(made.id)).provider_ref == "re_made"
    last = (await desk.operations.events(made.id))[-1]
    assert (last.event, last.actor) == ("resolved", "operator")
    due = (await desk.operations.get(unknown.id)).retry_at
    assert due is not None
    assert due <= datetime.now(UTC)
    await assert_books_agree(database_url)
    assert document(await desk.command("--json", "--resolve", day=today))["counts"]["status"] == 0


async def test_what_a_lost_notice_would_have_told_is_woken_as_if_it_had_come(desk: Desk, database_url: str) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)  # the provider's records are older than a settlement takes
    paid = await charged(desk.payments)
    returned, failed = await desk.refund(paid, "returned"), await desk.refund(paid, "failed", S.FAILED_FINAL)
    row = desk.row(paid)
    desk.books.charge(row, yesterday)
    desk.books.operation(
        row, "refund", yesterday, id_=returned.id, ref="re_returned", status="failed", code="account_closed"
    )
    desk.books.operation(row, "refund", yesterday, id_=failed.id, ref="re_failed")
    closed = await declined(desk.payments, "closed")
    debit = await claimed(desk.payments, (await accept_one(desk.payments, new("debit"))).payment.id)
    pending = settlement(debit.payment, Status.SUBMITTED, event="pending", provider="http", delay=LEASE)
    assert await desk.payments.settle(pending) is not None
    for payment in (closed, debit.payment):
        desk.books.charge(desk.row(payment), yesterday)
    held = await authorized(desk.payments, "held")
    desk.books.charge(desk.row(held), yesterday)  # captured by hand
    found = document(await desk.command("--resolve", "--json", day=yesterday.date().isoformat()))
    expected = {
        held.id: "authorized",
        returned.id: "success",
        failed.id: "failed_final",
        closed.id: "failed_final",
        debit.payment.id: "submitted",
    }
    assert {one["operation_id"] or one["payment_id"]: (one["step"], one["was"]) for one in found["resolutions"]} == {
        str(id_): ("woken", status) for id_, status in expected.items()
    }
    due = await rows(
        database_url,
        "SELECT id FROM operations WHERE sweep_at <= now() UNION ALL SELECT id FROM payments WHERE sweep_at <= now() "
        "OR status = 'submitted' AND retry_at <= now()",
    )
    assert {id_ for (id_,) in due} == set(expected)
