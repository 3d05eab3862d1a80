"""Each journal is read as it was kept: from a real Postgres, a real Redis and the mock provider itself."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.rows import TupleRow

from okane.lanes import payments_stream
from okane.load.client import Reply
from okane.payment import Status
from okane.simulator.journal import Charge as JournalLine
from okane.simulator.journal import Journal
from okane.store import Claim, NewPayment, PaymentStore, Settlement, history, session
from streams import Producer, connect
from tests.okane.stored_payments import accept_one
from torture.history.journals import (
    Charge,
    History,
    LogFile,
    Observation,
    PaymentRow,
    ProviderCounts,
    Request,
    parse_metrics,
    read_broker,
    read_charges,
    read_rows,
)
from torture.invariants.verdict import check

NEW = NewPayment(
    account_id="default",
    idempotency_key="k",
    fingerprint=b"f" * 32,
    amount_minor=440,
    currency="USD",
    lane="low",
    metadata={},
)
LINE = JournalLine(
    key="p-1:2",
    payment_id="p-1",
    amount=440,
    currency="USD",
    status="captured",
    provider_ref="ch_1",
    at="2026-01-01T00:00:00.500000+00:00",
)
CHARGE = Charge(payment_id="p-1", key="p-1:2", amount_minor=440, currency="USD", captured=True, at_s=1_767_225_600.5)


async def paid(url: str, key: str) -> str:
    """One payment, accepted, claimed and settled; its id."""
    store = PaymentStore(url, actor="w1", lease=timedelta(seconds=30), grace=timedelta(seconds=10))
    payment = (await accept_one(store, replace(NEW, idempotency_key=key))).payment
    claim = await store.claim(payment.id)
    assert isinstance(claim, Claim)
    await store.settle(
        Settlement(
            payment_id=payment.id,
            attempt=1,
            status=Status.SUCCESS,
            event="success",
            call="charge",
            provider="http",
            latency=timedelta(0),
        )
    )
    await store.aclose()
    return str(payment.id)


async def test_rows_and_events_are_read_as_they_stand(database_url: str) -> None:
    first, second = await paid(database_url, "k1"), await paid(database_url, "k2")
    read = await read_rows(database_url)
    assert read.rows.keys() == read.events.keys() == {first, second}
    row = read.rows[first]
    assert row == PaymentRow(
        id=first,
        account_id="default",
        key="k1",
        amount_minor=440,
        currency="USD",
        status=Status.SUCCESS,
        version=2,
        attempts=1,
        provider_key=first,
        created_at_s=row.created_at_s,
        reason=None,
    )
    claimed, success = read.events[first]
    assert (claimed.version, claimed.event, claimed.status, claimed.attempt) == (1, "claimed", Status.PROCESSING, 1)
    assert (success.version, success.event, success.status, success.attempt) == (2, "success", Status.SUCCESS, 1)
    assert row.created_at_s <= claimed.at_s <= success.at_s
    assert claimed.actor == "w1"
    assert (success.provider, row.retries) == ("http", 0)
    verdict = check(History(rows=read.rows, events=read.events))
    assert [violation.what for violation in verdict.violations] == ["success without a charge"] * 2


async def test_rows_and_events_are_of_the_same_moment(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await paid(database_url, "before")
    read_payments = history._payments

    async def and_one_more_comes(connection: psycopg.AsyncConnection[TupleRow]) -> Mapping[str, PaymentRow]:
        found = await read_payments(connection)
        await paid(database_url, "meanwhile")
        return found

    monkeypatch.setattr(history, "_payments", and_one_more_comes)
    read = await read_rows(database_url)
    assert len(read.rows) == 1
    assert read.events.keys() == read.rows.keys()


async def test_a_reader_that_is_slow_keeps_its_transaction(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine at its limit stops this process for longer than the idle time-out, which is for what holds locks."""
    for key in ("one", "two", "three"):
        await paid(database_url, key)

    def slow(**columns: Any) -> PaymentRow:
        time.sleep(0.4)
        return PaymentRow(**columns)

    monkeypatch.setattr(session, "IDLE_TIMEOUT_MS", 200)
    monkeypatch.setattr(history, "_ROWS_AT_ONCE", 1)
    monkeypatch.setattr(history, "PaymentRow", slow)
    assert len((await read_rows(database_url)).rows) == 3


async def test_the_providers_journal_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal.open(path)
    await journal.append(LINE)
    await journal.append(replace(LINE, key="p-2", payment_id="p-2", status="declined", code="card_declined"))
    await journal.aclose()
    assert read_charges(path) == [CHARGE, replace(CHARGE, payment_id="p-2", key="p-2", captured=False)]


def test_a_torn_last_line_of_the_journal_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(LINE.to_line() + LINE.to_line()[:-5])
    assert read_charges(path) == [CHARGE]


def test_what_the_provider_counted_adds_up_over_its_lives() -> None:
    lives = [{"calls": 5, "conflicts": 0, "keys": 3}, {"calls": 2, "conflicts": 1}]
    assert sum(map(ProviderCounts.from_summary, lives), ProviderCounts()) == ProviderCounts(calls=7, conflicts=1)


async def test_the_broker_is_read_with_what_is_left_in_it(redis_url: str) -> None:
    stream = payments_stream(f"journals-{uuid4()}")
    async with connect(redis_url) as redis:
        producer = Producer(redis, stream)
        await producer.publish(b"x", lane="low")
        await producer.aclose()
    stats = await read_broker(redis_url, stream=stream.name)
    assert {lane.lane: lane.length for lane in stats.lanes} == {"critical": 0, "default": 0, "low": 1}
    assert [violation.invariant for violation in check(History(broker=stats)).violations] == ["I10"]


def test_metrics_are_read_by_series_and_added_up_over_processes() -> None:
    text = (
        "# HELP okane_sweep_repairs_total Wake-ups\n# TYPE okane_sweep_repairs_total counter\n"
        'okane_sweep_repairs_total{lane="low"} 2.0\nokane_sweep_repairs_total{lane="a b"} 3.0\n'
        "okane_sweep_repairs_created 1.7e+09\n\nokane_oldest_due_seconds NaN\n"
    )
    samples = parse_metrics(text)
    assert samples['okane_sweep_repairs_total{lane="a b"}'] == 3.0
    assert len(samples) == 4
    found = History(metrics={"w1": samples, "w2": {"okane_sweep_repairs_total": 10.0}})
    assert found.total("okane_sweep_repairs_total") == 15.0
    assert found.total("okane_sweep_repairs") == 0


def test_a_log_can_be_read_again_and_holds_what_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "w1.log"
    path.write_bytes(b"one\n\xff\xfe two\nthree")
    log = LogFile(path)
    assert [line.strip() for line in log] == ["one", "�� two", "three"]
    assert len(list(log)) == 3


def test_an_answer_to_a_post_is_kept_as_it_came() -> None:
    def answered(reply: Reply) -> Request:
        return Request.answered(reply, key="k", amount_minor=440, currency="USD", sent_s=1, answered_s=2)

    said = {"payment": {"id": "p-1"}, "created": True, "enqueued": False}
    taken = answered(Reply(status=202, body=said))
    assert taken.acknowledged
    assert (taken.payment_id, taken.created, taken.enqueued) == ("p-1", True, False)
    refused = answered(Reply(status=422, body={"code": "idempotency_key_reused"}))
    assert not refused.acknowledged
    assert (refused.status, refused.payment_id, refused.created) == (422, None, None)
    broken = answered(Reply(failure="timeout"))
    assert not broken.acknowledged
    assert broken.status == 0


def test_an_answer_to_a_get_is_kept_as_it_came() -> None:
    said = {"payment": {"id": "p-1", "status": "success", "amount": 440, "currency": "USD"}}
    assert Observation.answered(Reply(status=200, body=said), payment_id="p-1", at_s=3) == Observation(
        payment_id="p-1", at_s=3, http_status=200, status="success", amount_minor=440, currency="USD"
    )
    gone = Observation.answered(Reply(status=404, body={"code": "payment_not_found"}), payment_id="p-1", at_s=3)
    assert (gone.http_status, gone.status) == (404, None)
