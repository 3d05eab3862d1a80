"""`okane reconcile` against the mock provider and a real Postgres: planted differences, and what it changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner, Result

from okane.cli import app
from okane.errors import OkaneError, SetupError
from okane.payment import Status
from okane.providers.base import Unavailable
from okane.providers.okane_http.provider import OkaneHttpProvider
from okane.store import Overview, PaymentStore, ReviewStore
from okane.store.movements import MovementStore
from tests.okane.money_days import DAY, NOON, Row, charged, write
from tests.okane.provider_days import Books
from tests.okane.reconciling import TEXT_DAY, Command, document, reconciling
from tests.okane.stored_payments import GRACE, LEASE

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
MIDNIGHT = DAY + timedelta(days=1)


@pytest.fixture
def books() -> Books:
    return Books()


@pytest.fixture
async def command(
    database_url: str, redis_url: str, books: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Command]:
    async with reconciling(database_url, redis_url, books, tmp_path, monkeypatch) as run:
        yield run


def agreeing(books: Books, number: int = 5) -> list[Row]:
    """Return payments on which both sides agree: plain, near midnight, refused, held, captured, refunded."""
    rows = [charged(NOON, 100 + n, provider_ref=f"ch_{n}") for n in range(number)]
    rows += [charged(DAY + SECOND, 1, provider_ref="ch_begin"), charged(MIDNIGHT + SECOND, 2, provider_ref="ch_end")]
    for row in rows:
        books.charge(row, row.events[-1][2] - 2 * SECOND)
    late = charged(NOON, 3, accepted=DAY - timedelta(days=4), provider_ref="ch_late")  # looked up after days
    books.charge(late, DAY - timedelta(days=4))
    refused = Row(accepted=NOON, status="failed_final").event("declined", NOON, "failed_final")
    books.charge(refused, NOON, status="declined")
    held = Row(accepted=NOON, amount=500, captured=300, provider_ref="ch_held")
    capture, refund = (
        held.operation("capture", 300, provider_ref="ca_1"),
        held.operation("refund", 40, provider_ref="re_1"),
    )
    held.event("authorized", NOON, "authorized").event("captured", NOON + SECOND, operation=capture)
    held.event("refunded", NOON + MINUTE, operation=refund)
    books.charge(held, NOON, status="authorized")
    books.operation(held, "capture", NOON, id_=capture, amount=300, ref="ca_1")
    books.operation(held, "refund", NOON, id_=refund, amount=40, ref="re_1")
    voided = Row(accepted=NOON, amount=7, status="canceled").event("authorized", NOON, "authorized")
    voided.event("voided", NOON + SECOND, "canceled", voided.operation("void", 7, provider_ref="vo_1"))
    books.charge(voided, NOON, status="authorized")
    books.operation(voided, "void", NOON, amount=7)
    return [*rows, late, refused, held, voided]


async def test_books_that_agree_have_no_difference_and_midnight_makes_none(
    command: Command, books: Books, database_url: str
) -> None:
    await write(database_url, agreeing(books))
    result = await command("--json")
    found = document(result)
    assert found["differences"] == []
    assert (result.exit_code, found["complete"], found["differences_left"]) == (0, True, 0)
    assert found["fees"] == {"USD": 14}  # of each charge and capture, rounded
    report = await asyncio.to_thread(CliRunner().invoke, app, ["report", "--day", TEXT_DAY, "--json"])
    assert found["compared"] == sum(one["count"] for one in json.loads(report.stdout)["totals"])
    for day in (DAY - timedelta(days=4), MIDNIGHT, MIDNIGHT + timedelta(days=1)):
        assert document(await command("--json", day=day.date().isoformat()))["differences"] == []
    text = await command()
    assert "0 differences left" in text.stdout


async def planted(books: Books, database_url: str) -> set[tuple[str, str, str | None]]:
    """Plant differences among books that agree; return each with the name at the provider or, without one, None."""
    rows = agreeing(books)
    expected: set[tuple[str, str, str | None]] = set()

    def plant(kind: str, of: str, ref: str | None, *more: Row) -> None:
        rows.extend(more)
        expected.add((kind, of, ref))

    plant("missing_here", "charge", books.charge(str(Row(accepted=NOON).id), NOON))
    plant("missing_here", "charge", books.charge("by hand", NOON))
    twice = charged(NOON, 50, provider_ref="ch_first")
    books.charge(twice, NOON)
    plant("missing_here", "charge", books.charge(twice, NOON, key="another", ref="ch_second"), twice)
    plant("missing_there", "charge", "ch_gone", charged(NOON, 60, provider_ref="ch_gone"))
    more = charged(NOON, 70, provider_ref="ch_more")
    plant("amount", "charge", books.charge(more, NOON, amount=71), more)
    euro = charged(NOON, 80, provider_ref="ch_euro")
    plant("currency", "charge", books.charge(euro, NOON, currency="EUR"), euro)
    closed = Row(accepted=NOON, status="failed_final").event("declined", NOON, "failed_final")
    plant("status", "charge", books.charge(closed, NOON), closed)
    unknown = Row(accepted=NOON, status="unknown").event("unknown", NOON, "unknown")
    plant("status", "charge", books.charge(unknown, NOON), unknown)
    base = charged(NOON, 900, provider_ref="ch_base")
    books.charge(base, NOON)
    books.operation(base, "refund", NOON, ref="re_hand")
    plant("missing_here", "refund", "re_hand", base)
    wrong, failed = (
        base.operation("refund", 30, provider_ref="re_wrong"),
        base.operation("refund", 20, provider_ref="re_failed"),
    )
    base.event("refunded", NOON, operation=wrong).event("refunded", NOON, operation=failed)
    books.operation(base, "refund", NOON, id_=wrong, amount=33, ref="re_wrong")
    books.operation(base, "refund", NOON, id_=failed, amount=20, ref="re_failed", status="failed")
    plant("amount", "refund", "re_wrong")
    plant("status", "refund", "re_failed")
    part = Row(accepted=NOON, amount=500, captured=300, provider_ref="ch_part")
    capture = part.operation("capture", 300, provider_ref="ca_part")
    part.event("authorized", NOON, "authorized").event("captured", NOON, operation=capture)
    books.charge(part, NOON, status="authorized")
    books.operation(part, "capture", NOON, id_=capture, amount=500, ref="ca_part")
    plant("amount", "capture", "ca_part", part)
    await write(database_url, rows)
    return expected


async def test_every_planted_difference_is_found_and_nothing_else(
    command: Command, books: Books, database_url: str
) -> None:
    expected = await planted(books, database_url)
    assert len(expected) >= 10
    assert {kind for kind, *_ in expected} == {"missing_here", "missing_there", "amount", "currency", "status"}
    result = await command("--json")
    found = [(one["kind"], one["of"], one["provider_ref"]) for one in document(result)["differences"]]
    assert sorted(found, key=str) == sorted(expected, key=str)
    assert result.exit_code == 1
    text = await command()
    assert all(ref in text.stdout for _, _, ref in expected if ref)


async def test_the_result_of_the_last_run_is_kept_and_a_dry_run_keeps_none(
    command: Command, books: Books, database_url: str
) -> None:
    await planted(books, database_url)
    movements = MovementStore(database_url)
    assert (await command("--dry-run")).exit_code == 1
    assert await movements.of_day(DAY.date()) == []
    assert (await command()).exit_code == 1
    [kept] = await movements.of_day(DAY.date())
    assert kept.provider == "http"
    assert kept.differences == {"missing_here": 4, "missing_there": 1, "amount": 3, "currency": 1, "status": 3}
    await movements.aclose()
    overview = Overview(database_url)
    assert await overview.differences() == []  # that day is long past
    assert await overview.reconcile_ages() == {}  # one day is no routine
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute("UPDATE reconciliations SET day = now() AT TIME ZONE 'UTC'")
        await connection.execute(
            "INSERT INTO reconciliations (provider, day, ran_at, listed, compared, differences, fees) SELECT provider, "
            "DATE '2020-01-01' + days, now() - days * interval '1 day', 1, 1, '{}', '{}' "
            "FROM (VALUES ('http', 2), ('http', 3), ('seldom', 4), ('seldom', 5), ('once', 31), ('once', 32), ('once', 33)) "
            "AS past (provider, days)"
        )
    assert {(provider, kind): count for provider, kind, count in await overview.differences()} == {
        ("http", kind): count for kind, count in kept.differences.items()
    }
    [(provider, age)] = (await overview.reconcile_ages()).items()
    assert provider == "http"
    assert timedelta(0) <= age < timedelta(hours=1)
    await overview.aclose()


async def test_reviews_and_unknown_payments_are_decided_by_what_the_provider_has(
    command: Command, books: Books, database_url: str
) -> None:
    names = ("charged", "refused", "absent", "unknown", "other")
    rows = {
        name: Row(accepted=NOON, status="needs_review").event("needs_review", NOON, "needs_review") for name in names
    }
    rows["unknown"].status = "unknown"
    rows["other"].provider_ref = "ch_known"  # and the provider has another one
    books.charge(rows["charged"], NOON, ref="ch_found")
    books.charge(rows["refused"], NOON, status="declined")
    books.charge(rows["unknown"], NOON)
    books.charge(rows["other"], NOON, ref="ch_another")
    await write(database_url, list(rows.values()))
    reviews = ReviewStore(database_url)

    async def statuses() -> dict[str, Status]:
        return {name: (await reviews.find(row.id)).status for name, row in rows.items()}

    before = await statuses()
    dry = document(await command("--resolve", "--dry-run", "--json"))
    assert await statuses() == before
    steps = {one["payment_id"]: one["step"] for one in dry["resolutions"]}
    expected = {"charged": "resolved", "refused": "resolved", "absent": "kept", "unknown": "woken", "other": "kept"}
    assert steps == {str(rows[name].id): step for name, step in expected.items()}
    result = await command("--resolve", "--json")
    done = document(result)
    assert {one["payment_id"]: one["step"] for one in done["resolutions"]} == steps
    assert await statuses() == before | {"charged": Status.SUCCESS, "refused": Status.FAILED_FINAL}
    assert (await reviews.find(rows["charged"].id)).provider_ref == "ch_found"
    store = PaymentStore(database_url, actor="test", lease=LEASE, grace=GRACE)
    last = (await store.events(rows["charged"].id))[-1]
    assert (last.event, last.actor) == ("resolved", "operator")
    assert last.reason == f"reconcile of {TEXT_DAY}: http has executed it as ch_found"
    # Its look-up is due: a worker claims it, and what it finds is an outcome like any other.
    assert (await reviews.find(rows["unknown"].id)).retry_at is not None
    left = {one["provider_ref"]: one["resolved"] for one in done["differences"]}
    assert left["ch_found"] is True
    assert left["ch_another"] is False
    assert result.exit_code == 1  # the unknown one and the other charge are left
    await store.aclose()
    await reviews.aclose()


async def test_payments_whose_rows_name_no_provider_are_decided_at_the_one_that_they_had(
    command: Command, books: Books, database_url: str
) -> None:
    names: dict[str, str] = {"charged": "needs_review", "absent": "needs_review", "unknown": "unknown"}
    rows = {
        name: Row(accepted=NOON, status=status, provider=None).event(status, NOON, status)
        for name, status in names.items()
    }
    never_called = Row(accepted=NOON, status="needs_review", provider=None, attempts=0)
    books.charge(rows["charged"], NOON, ref="ch_found")
    books.charge(rows["unknown"], NOON)
    await write(database_url, [*rows.values(), never_called.event("needs_review", NOON, "needs_review")])
    done = document(await command("--resolve", "--json"))
    steps = {one["payment_id"]: one["step"] for one in done["resolutions"]}
    expected = {"charged": "resolved", "absent": "kept", "unknown": "woken"}
    assert steps == {str(rows[name].id): step for name, step in expected.items()}
    reviews = ReviewStore(database_url)
    assert (await reviews.find(rows["charged"].id)).status is Status.SUCCESS
    assert (await reviews.find(rows["unknown"].id)).retry_at is not None
    await reviews.aclose()


async def test_a_payment_that_changes_between_look_up_and_decision_is_left_alone(
    command: Command, books: Books, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Row(accepted=NOON, status="needs_review").event("needs_review", NOON, "needs_review")
    books.charge(row, NOON, ref="ch_found")
    await write(database_url, [row])
    resolve = PaymentStore.resolve

    async def overtaken(self: PaymentStore, *given: Any, **named: Any) -> Any:
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            await connection.execute("UPDATE payments SET version = version + 1 WHERE id = %s", [row.id])
        return await resolve(self, *given, **named)

    monkeypatch.setattr(PaymentStore, "resolve", overtaken)
    [step] = document(await command("--resolve", "--json"))["resolutions"]
    assert (step["step"], step["why"]) == ("kept", "it has changed meanwhile")


async def test_a_run_that_is_cut_off_at_any_decision_has_made_whole_ones_and_a_repeat_makes_the_rest(
    command: Command, books: Books, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [Row(accepted=NOON, status="needs_review").event("needs_review", NOON, "needs_review") for _ in range(4)]
    for row in rows:
        books.charge(row, NOON)
    await write(database_url, rows)
    resolve, calls = PaymentStore.resolve, 0

    class Killed(BaseException):
        pass

    async def cut_off(self: PaymentStore, *given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Killed
        return await resolve(self, *given, **named)

    monkeypatch.setattr(PaymentStore, "resolve", cut_off)
    with pytest.raises(Killed):
        await command("--resolve")
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        for expected in (2, 4):
            cursor = await connection.execute(
                "SELECT count(*), count(*) FILTER (WHERE e.event = 'resolved' AND p.version = e.version) FROM payments p "
                "JOIN payment_events e ON e.payment_id = p.id AND e.version = p.version WHERE p.status = 'success'"
            )
            assert await cursor.fetchone() == (expected, expected)
            cursor = await connection.execute(
                "SELECT sum(value::int) FROM reconciliations, jsonb_each_text(differences)"
            )
            assert await cursor.fetchone() == (None,)
            await connection.commit()
            result = await command("--resolve", "--json")
            assert (result.exit_code, document(result)["differences_left"]) == (0, 0)


async def test_a_provider_that_does_not_answer_is_no_agreement(
    command: Command, books: Books, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(database_url, agreeing(books))
    assert (await command()).exit_code == 0
    monkeypatch.setattr("okane.providers.list_reader.PAUSES_S", (0.0,))
    monkeypatch.setattr(
        "okane.providers.okane_http.records.OkaneHttpListing.__init__.__kwdefaults__", {"pauses_s": (0.0,)}
    )
    monkeypatch.setenv("PROVIDER_BASE_URL", "http://127.0.0.1:1")

    async def run() -> Result:
        words = ["reconcile", "--provider", "http", "--day", TEXT_DAY]
        return await asyncio.to_thread(CliRunner().invoke, app, words)

    result = await run()
    assert isinstance(result.exception, OkaneError)
    assert "its list cannot be read" in str(result.exception)


async def test_a_movement_that_the_provider_cannot_be_asked_about_leaves_the_day_uncompared(
    command: Command, books: Books, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(database_url, [*agreeing(books), charged(NOON, 60, provider_ref="ch_gone")])

    async def away(*given: Any, **named: Any) -> Unavailable:
        return Unavailable("away", retry_after=timedelta(0))

    monkeypatch.setattr(OkaneHttpProvider, "look_up", away)
    result = await command("--json")
    assert isinstance(result.exception, SetupError)
    assert "did not answer the look-ups of 2 movements" in str(result.exception)
    found = json.loads(result.stdout)
    assert (found["differences"], found["unanswered"]) == ([], 2)  # the one of days ago is not in the list, either
    movements = MovementStore(database_url)
    assert await movements.of_day(DAY.date()) == []
    await movements.aclose()


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        (
            '[providers.payu]\nkind = "payu"\npos_id = "1"\nclient_id = "1"\nclient_secret = "env:SECRET"\n',
            "has no list",
        ),
        ('[providers.other]\nkind = "okane_http"\nbase_url = "http://127.0.0.1:1"\n', "no provider is called 'payu'"),
    ],
)
async def test_a_provider_without_a_list_or_of_another_name_is_refused(
    text: str, refusal: str, database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "providers.toml").write_text(text)
    for name, setting in {
        "OKANE_PROVIDERS_FILE": str(tmp_path / "providers.toml"),
        "SECRET": "s" * 32,
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
    }.items():
        monkeypatch.setenv(name, setting)
    result = await asyncio.to_thread(CliRunner().invoke, app, ["reconcile", "--provider", "payu"])
    assert isinstance(result.exception, OkaneError)
    assert refusal in str(result.exception)
