"""`okane report` against a real Postgres: which movements belong to a day, what it prints, and what a read costs."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql
from typer.testing import Result

from okane.cli.day import Progress, day_span
from okane.cli.report import read_statement
from okane.errors import SetupError
from okane.store.movements import SQL, Movement, MovementStore, Reconciliation
from okane.store.session import BY_TIME
from tests.okane.commands import Command, command_of
from tests.okane.money_days import DAY, NOON, Row, charged, write

SECOND = timedelta(seconds=1)
TEXT_DAY = DAY.date().isoformat()


command = command_of("report")


@pytest.fixture
async def movements(database_url: str) -> AsyncIterator[MovementStore]:
    store = MovementStore(database_url)
    yield store
    await store.aclose()


async def told(command: Command, *words: str) -> list[tuple[Any, ...]]:
    result = await command("--day", TEXT_DAY, "--json", *words)
    assert result.exit_code == 0, result.output
    return [(one["provider"], one["kind"], one["currency"], one["count"], one["amount"]) for one in _totals(result)]


def _totals(result: Result) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(result.stdout)["totals"]
    return found


async def test_a_charge_belongs_to_the_day_in_which_it_succeeded_not_to_that_of_its_acceptance(
    command: Command, database_url: str
) -> None:
    week = timedelta(days=7)
    await write(
        database_url,
        [
            charged(DAY, 1, accepted=DAY - SECOND),
            charged(DAY + timedelta(days=1) - timedelta(microseconds=1), 2, accepted=DAY - week),
            charged(DAY - timedelta(microseconds=1), 4),
            charged(DAY + timedelta(days=1), 8, accepted=NOON),
        ],
    )
    assert await told(command) == [("http", "charge", "USD", 2, 3)]


@pytest.mark.parametrize("day", ["2026-03-08", "2026-11-01"])  # the clocks change in New York
async def test_a_day_is_one_of_utc_whatever_the_zones_of_machine_and_session(
    command: Command, database_url: str, monkeypatch: pytest.MonkeyPatch, day: str
) -> None:
    begin = datetime.fromisoformat(f"{day}T00:00:00+00:00")
    borders = (begin - SECOND, begin, begin + timedelta(days=1) - SECOND, begin + timedelta(days=1))
    await write(database_url, [charged(at, 10**place) for place, at in enumerate(borders)])
    monkeypatch.setenv("TZ", "America/New_York")
    monkeypatch.setenv("PGTZ", "America/New_York")
    found = json.loads((await command("--day", day, "--json")).stdout)
    assert [(one["count"], one["amount"]) for one in found["totals"]] == [(2, 110)]
    assert (found["begin"], found["end"]) == (f"{day}T00:00:00+00:00", (begin + timedelta(days=1)).isoformat())


async def test_captures_refunds_and_refunds_that_failed_later_are_movements_and_requests_are_not(
    command: Command, database_url: str
) -> None:
    held = Row(accepted=DAY - timedelta(days=3), amount=1000, captured=700)
    capture, refund, late, failed = (
        held.operation("capture", 700),
        held.operation("refund", 50),
        held.operation("refund", 20, status="failed_final"),
        held.operation("refund", 5, status="failed_final"),
    )
    held.event("authorized", DAY - timedelta(days=3), "authorized")
    held.event("capture_requested", NOON, "authorized", capture).event("captured", NOON + SECOND, operation=capture)
    for place, name in enumerate(("refund_requested", "refunded")):
        held.event(name, NOON + (2 + place) * SECOND, operation=refund)
    for place, name in enumerate(("refund_requested", "refunded", "refund_failed")):
        held.event(name, NOON + (4 + place) * SECOND, operation=late)
    for place, name in enumerate(("refund_requested", "refund_failed")):
        held.event(name, NOON + (8 + place) * SECOND, operation=failed)
    voided = Row(accepted=NOON, amount=9, status="canceled")
    voided.event("authorized", NOON, "authorized").event("voided", NOON, "canceled", voided.operation("void", 9))
    await write(database_url, [held, voided])
    assert await told(command) == [
        ("http", "capture", "USD", 1, 700),
        ("http", "refund", "USD", 2, 70),
        ("http", "refund_reversal", "USD", 1, 20),
    ]
    [net] = json.loads((await command("--day", TEXT_DAY, "--json")).stdout)["net"]
    assert net["amount"] == 700 - 50


async def test_a_payment_counts_once_when_a_human_decided_it_and_late_results_count_for_none(
    command: Command, database_url: str
) -> None:
    decided = Row(accepted=NOON, amount=7).event("needs_review", NOON, "needs_review").event("resolved", NOON + SECOND)
    late = charged(NOON, 5).event("late_result", NOON + SECOND)
    refused = Row(accepted=NOON, status="failed_final").event("resolved", NOON, "failed_final")
    await write(database_url, [decided, late, refused])
    assert await told(command) == [("http", "charge", "USD", 2, 12)]


async def test_a_refund_that_comes_back_is_counted_once_however_often_it_is_tried_again(
    command: Command, database_url: str
) -> None:
    paid = charged(NOON, 100)
    returned = paid.operation("refund", 30, status="failed_final")
    for place, name in enumerate(("refunded", "refund_failed", "refund_requested", "refund_failed")):
        paid.event(name, NOON + (1 + place) * SECOND, operation=returned)
    again = charged(NOON, 100)
    twice = again.operation("refund", 4, status="failed_final")
    for place, name in enumerate(("refunded", "refund_failed", "refund_requested", "refunded", "refund_failed")):
        again.event(name, NOON + (1 + place) * SECOND, operation=twice)
    await write(database_url, [paid, again])
    assert await told(command) == [
        ("http", "charge", "USD", 2, 200),
        ("http", "refund", "USD", 3, 30 + 4 + 4),
        ("http", "refund_reversal", "USD", 3, 30 + 4 + 4),
    ]


@pytest.mark.parametrize(
    ("events", "kind"), [(("captured", "resolved"), "capture"), (("resolved", "captured"), "charge")]
)
async def test_a_capture_beside_a_void_and_the_decision_about_its_payment_are_one_movement(
    command: Command, database_url: str, events: tuple[str, str], kind: str
) -> None:
    found = Row(accepted=NOON, amount=500, captured=300).event("authorized", NOON, "authorized")
    void, capture = found.operation("void", 500), found.operation("capture", 300)
    found.event("voided", NOON, "canceled", void).event("late_result", NOON, "needs_review", capture)
    for place, name in enumerate(events):
        status = "success" if place or name == "resolved" else "needs_review"
        found.event(name, NOON + (1 + place) * SECOND, status, capture if name == "captured" else None)
    await write(database_url, [found])
    assert await told(command) == [("http", kind, "USD", 1, 300)]


async def test_the_statement_has_a_line_for_each_provider_and_currency(command: Command, database_url: str) -> None:
    await write(
        database_url,
        [
            charged(NOON, 1, provider="stripe"),
            charged(NOON, 2, provider="payu", currency="PLN"),
            charged(NOON, 4, provider="stripe", currency="EUR"),
            charged(NOON, 2**62, provider="stripe"),
            charged(NOON, 2**62 - 1, provider=None, attempts=0),  # decided by a human before any attempt
            charged(NOON, 8, provider=None),  # by a version that knew one provider
        ],
    )
    everything = [
        (None, "charge", "USD", 1, 2**62 - 1),
        ("http", "charge", "USD", 1, 8),
        ("payu", "charge", "PLN", 1, 2),
        ("stripe", "charge", "EUR", 1, 4),
        ("stripe", "charge", "USD", 2, 2**62 + 1),
    ]
    assert await told(command) == everything
    assert await told(command, "--provider", "stripe") == everything[3:]
    assert await told(command, "--provider", "other") == []
    rows = list(csv.DictReader(io.StringIO((await command("--day", TEXT_DAY, "--csv")).stdout)))
    assert [row["amount"] for row in rows] == [str(amount) for *_, amount in everything]
    assert rows[2] == {
        "day": TEXT_DAY,
        "provider": "payu",
        "kind": "charge",
        "currency": "PLN",
        "count": "1",
        "amount": "2",
    }
    text = (await command("--day", TEXT_DAY)).stdout
    assert "4,611,686,018,427,387,905" in text
    assert "net" in text


async def test_sums_above_the_largest_bigint_are_exact(command: Command, database_url: str) -> None:
    await write(database_url, [charged(NOON, 2**63 - 1) for _ in range(3)])
    assert await told(command) == [("http", "charge", "USD", 3, 3 * (2**63 - 1))]


async def test_fees_stand_in_the_statement_once_the_day_was_compared(
    command: Command, database_url: str, movements: MovementStore
) -> None:
    await write(database_url, [charged(NOON, provider="stripe")])
    result = Reconciliation(
        provider="stripe", day=DAY.date(), listed=1, compared=1, differences={"amount": 2}, fees={"USD": 33}
    )
    await movements.keep(result)
    await movements.keep(result)
    rows = list(csv.DictReader(io.StringIO((await command("--day", TEXT_DAY, "--csv")).stdout)))
    assert [(row["kind"], row["currency"], row["amount"]) for row in rows[1:]] == [("fee", "USD", "33")]
    assert "2 differences, fees 33 USD" in (await command("--day", TEXT_DAY)).stdout
    [reconciled] = json.loads((await command("--day", TEXT_DAY, "--json")).stdout)["reconciled"]
    assert (reconciled["differences"], reconciled["fees"]) == (2, {"USD": 33})


async def test_a_day_that_is_not_over_says_so_and_one_that_has_not_begun_is_refused(command: Command) -> None:
    today = datetime.now(UTC).date()
    so_far = await command("--day", today.isoformat(), "--json")
    assert so_far.exit_code == 0
    assert json.loads(so_far.stdout)["complete"] is False
    assert "is not over" in so_far.stderr
    yesterday = json.loads((await command("--json")).stdout)
    assert yesterday["day"] in {(today - timedelta(days=back)).isoformat() for back in (0, 1)}  # midnight may pass
    over = await command("--day", TEXT_DAY)
    assert (over.exit_code, over.stderr) == (0, "")
    assert "no money moved" in over.stdout


@pytest.mark.parametrize("text", ["2026-3-14", "20260314", "2026-02-30", "today", "", "२०२६-०३-१४", "9999-12-31"])
def test_only_a_date_that_has_begun_is_a_day(text: str) -> None:
    with pytest.raises(SetupError, match=r"is not a date|has not begun"):
        day_span(text, now=NOON)


def test_a_day_is_from_midnight_to_midnight_in_utc() -> None:
    assert day_span("2026-03-14", now=NOON) == (date(2026, 3, 14), DAY, DAY + timedelta(days=1))
    assert day_span(None, now=NOON)[0] == date(2026, 3, 13)


async def test_csv_and_json_do_not_go_together(command: Command) -> None:
    assert (await command("--day", TEXT_DAY, "--csv", "--json")).exit_code == 2


async def test_pages_and_slices_hold_each_movement_once_in_the_order_of_time(
    movements: MovementStore, database_url: str
) -> None:
    dice = random.Random(7)
    moments = [DAY + timedelta(seconds=dice.randrange(-3600, 90_000)) for _ in range(40)]
    rows = [charged(dice.choice(moments), number + 1) for number in range(400)]
    rows += [charged(NOON, 1000 + number) for number in range(150)]  # one instant, of more than a page
    await write(database_url, rows)
    end = DAY + timedelta(days=1)
    expected = sorted((row.events[-1][2], row.id, row.amount) for row in rows if DAY <= row.events[-1][2] < end)
    for page in (7, 100, 2000):
        found: list[Movement] = []
        async for some in movements.each(DAY, end, page=page):
            assert len(some) <= page
            found += some
        assert [(one.at, one.payment_id, one.amount_minor) for one in found] == expected
    totals = [total async for _, some in movements.totals(DAY, end) for total in some]
    assert sum(total.count for total in totals) == len(expected)
    assert sum(total.amount_minor for total in totals) == sum(amount for *_, amount in expected)


async def test_a_long_read_tells_how_far_it_is(
    movements: MovementStore, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await write(database_url, [charged(NOON)])
    await read_statement(movements, TEXT_DAY, provider=None, progress=Progress(every_s=0, is_shown=True))
    assert "1 movements" in capsys.readouterr().err
    await read_statement(movements, TEXT_DAY, provider=None, progress=Progress(every_s=60, is_shown=True))
    assert capsys.readouterr().err == ""


async def test_a_few_minutes_of_a_large_table_are_found_by_time_and_no_table_is_read_as_a_whole(
    database_url: str,
) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(
            "INSERT INTO payments (id, account_id, idempotency_key, fingerprint, amount_minor, currency, lane, provider_key,"
            " status, provider) SELECT gen_random_uuid(), 'a', i::text, 'f', 1, 'USD', 'low', 'k', 'success', 'http' "
            "FROM generate_series(1, 60000) i"
        )
        await connection.execute(
            "INSERT INTO payment_events (payment_id, version, at, event, status, attempt, actor) "
            "SELECT id, 1, timestamptz '2026-01-01' + (row_number() OVER ()) * interval '1 minute', 'success', 'success', 1, "
            "'a' FROM payments"
        )
        await connection.execute("SELECT brin_summarize_new_values('payment_events_at')")
        for name, setting in BY_TIME.items():
            await connection.execute(sql.SQL("SET {} = {}").format(sql.Identifier(name), sql.Literal(setting)))
        for _ in ("without statistics", "with them"):
            for statement in ("totals", "each"):
                for provider in (None, "http"):
                    await check_plan(connection, statement, provider)
            await connection.execute("VACUUM ANALYZE payments")
            await connection.execute("VACUUM ANALYZE payment_events")


async def check_plan(connection: psycopg.AsyncConnection[Any], statement: str, provider: str | None) -> None:
    """Check that an hour of the events leads to its payments."""
    parameters = {
        "begin": datetime(2026, 1, 20, tzinfo=UTC),
        "end": datetime(2026, 1, 20, 1, tzinfo=UTC),
        "provider": provider,
        "after_at": datetime(2026, 1, 19, tzinfo=UTC),
        "after_id": "00000000-0000-0000-0000-000000000000",
        "after_version": 0,
        "limit": 100,
    }
    cursor = psycopg.AsyncClientCursor(connection)
    await cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + SQL[statement], parameters)
    [whole] = (await cursor.fetchall())[0][0]
    plan = json.dumps(whole)
    assert "Seq Scan" not in plan
    assert "payment_events_at" in plan
    assert _rows(whole["Plan"], "payment_events") < 30_000
    assert _rows(whole["Plan"], "payments") <= 60


def _rows(plan: dict[str, Any], table: str) -> int:
    """Return the number of rows that a plan has read of a table, with those that it left out."""
    here = 0
    if plan.get("Relation Name") == table:
        left_out = plan.get("Rows Removed by Filter", 0) + plan.get("Rows Removed by Index Recheck", 0)
        here = round((plan["Actual Rows"] + left_out) * plan["Actual Loops"])
    return here + sum(_rows(child, table) for child in plan.get("Plans", []))
