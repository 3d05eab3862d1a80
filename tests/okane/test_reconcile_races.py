"""`okane reconcile` while both sides change: a worker or another run decides, a refund fails later, kill -9 cuts it off."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import psycopg
import pytest
from aiohttp import web

from okane.providers.base import Approved, Declined, Pending, Unavailable
from okane.providers.listing import ListingFailed, ProviderRecord
from okane.providers.okane_http.provider import OkaneHttpProvider
from okane.reconcile.day import MAX_UNANSWERED, DayComparison, DayResult
from okane.reconcile.look_up import LookUps
from okane.simulator.app import build_app
from okane.simulator.options import SimulatorOptions
from okane.store import Claim, PaymentStore, ReviewStore
from okane.store.movements import MovementStore
from okane.store.operations import OperationStore
from tests.okane.money_days import DAY, NOON, Row, charged, write
from tests.okane.provider_days import Books
from tests.okane.reconciling import TEXT_DAY, document, reconciling
from tests.okane.stored_payments import GRACE, LEASE, settlement

SECOND = timedelta(seconds=1)


class Answers:
    """A list with these records, and look-ups that all have one answer. `then` runs once the list was read."""

    name = "http"

    def __init__(self, *records: ProviderRecord, answer: object = None) -> None:
        self.records = records
        self.answer = answer
        self.then: Callable[[], Any] | None = None

    async def list_records(self, begin: datetime, end: datetime) -> AsyncIterator[Sequence[ProviderRecord]]:
        yield self.records
        if self.then is not None:
            await self.then()

    async def look_up(self, *given: object, may_execute: bool) -> Any:
        assert not may_execute
        return self.answer

    look_up_operation = look_up

    async def aclose(self) -> None:
        pass


async def compared(url: str, answers: Answers) -> DayResult:
    async with contextlib.AsyncExitStack() as closing:
        movements, reviews = MovementStore(url), ReviewStore(url)
        operations = OperationStore(url, actor="test", lease=LEASE, grace=GRACE)
        for store in (movements, reviews, operations):
            closing.push_async_callback(store.aclose)
        comparison = DayComparison(
            movements=movements,
            listing=answers,
            look_ups=LookUps(answers, pauses_s=()),  # type: ignore[arg-type] # the look-ups of a provider
            find_payment=reviews.find,
            find_operation=operations.get,
            progress=lambda text: None,
        )
        return await comparison.run(DAY, DAY + timedelta(days=1))


def record(
    kind: Literal["charge", "refund"], row: Row, status: Any, ref: str, operation: UUID | None = None
) -> ProviderRecord:
    amount = row.amount if operation is None else 30
    return ProviderRecord(
        kind=kind,
        at=NOON,
        provider_ref=ref,
        status=status,
        amount_minor=amount,
        currency="USD",
        payment_id=row.id,
        operation_id=operation,
    )


@pytest.mark.parametrize("kind", ["charge", "refund"])
@pytest.mark.parametrize(
    ("answer", "differences", "unanswered"),
    [
        (Approved("x_1"), [], 0),
        (Pending("x_1"), ["status"], 0),
        (Unavailable("away", retry_after=timedelta(0)), [], 1),
    ],
    ids=["decided", "pending", "away"],
)
async def test_a_record_that_was_pending_when_its_page_was_read_is_looked_up_before_it_differs(
    database_url: str, kind: Literal["charge", "refund"], answer: object, differences: list[str], unanswered: int
) -> None:
    row = charged(NOON, 100, provider_ref="x_1")
    operation = row.operation("refund", 30, provider_ref="x_1") if kind == "refund" else None
    if operation is not None:
        row.event("refunded", NOON + SECOND, operation=operation)
    await write(database_url, [row])
    # A refund's charge is in the list, too.
    others = [record("charge", row, "succeeded", "x_1")] if kind == "refund" else []
    found = await compared(
        database_url, Answers(record(kind, row, "pending", "x_1", operation), *others, answer=answer)
    )
    assert ([one.kind for one in found.differences], found.unanswered) == (differences, unanswered)


async def test_a_row_that_is_settled_while_the_list_is_read_is_no_difference(database_url: str) -> None:
    late, still = (Row(accepted=NOON, status="unknown").event("unknown", NOON, "unknown") for _ in range(2))
    await write(database_url, [late, still])
    answers = Answers(record("charge", late, "succeeded", "ch_late"), record("charge", still, "succeeded", "ch_still"))

    async def settle() -> None:
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            await connection.execute(
                "UPDATE payments SET status = 'success', rare_status = NULL, provider_ref = 'ch_late' WHERE id = %s",
                [late.id],
            )

    answers.then = settle
    found = await compared(database_url, answers)
    assert [one.payment_id for one in found.differences] == [still.id]
    assert +found.counts == {"status": 1}


@pytest.mark.parametrize(
    ("events", "status", "answer"),
    [
        (("refunded", "refund_failed"), "failed_final", Declined("account_closed", "", "re_1")),
        (("refund_failed", "refund_requested", "refunded"), "success", Approved("re_1")),
        (("refund_failed", "refund_requested"), "unknown", Approved("re_1")),
    ],
    ids=["came back later", "made again later", "tried again now"],
)
async def test_a_refund_is_compared_as_it_is_now_and_not_as_it_was_on_its_day(
    database_url: str, events: tuple[str, ...], status: str, answer: object
) -> None:
    row = charged(DAY - timedelta(days=3), 100, provider_ref="ch_1")
    refund = row.operation("refund", 30, status=status, provider_ref="re_1")
    if events[0] == "refund_failed":
        row.event("refunded", DAY - timedelta(days=2), operation=refund)
    for place, name in enumerate(events):
        row.event(name, NOON + place * timedelta(days=1), operation=refund)
    await write(database_url, [row])
    found = await compared(database_url, Answers(answer=answer))
    assert (found.compared, found.differences) == (1, [])


@pytest.mark.parametrize("in_list", ["nothing", "pending"])
async def test_a_row_that_has_become_what_its_look_up_found_is_no_difference(database_url: str, in_list: str) -> None:
    row = charged(DAY - timedelta(days=3), 100, provider_ref="ch_1")
    refund = row.operation("refund", 30, status="success", provider_ref="re_1")
    row.event("refunded", NOON, operation=refund)
    await write(database_url, [row])
    listed = () if in_list == "nothing" else (record("refund", row, "pending", "re_1", refund),)

    class Returned(Answers):
        """The worker writes what the look-up has found right after it."""

        async def look_up(self, *given: object, may_execute: bool) -> Any:
            async with await psycopg.AsyncConnection.connect(database_url) as connection:
                await connection.execute("UPDATE operations SET status = 'failed_final' WHERE id = %s", [refund])
            return await super().look_up(*given, may_execute=may_execute)

        look_up_operation = look_up

    found = await compared(database_url, Returned(*listed, answer=Declined("account_closed", "", "re_1")))
    assert found.differences == []
    still = await compared(database_url, Answers(*listed, answer=Approved("re_1")))
    assert [one.kind for one in still.differences] == ["status"]


async def test_a_provider_that_answers_no_look_up_ends_the_comparison(database_url: str) -> None:
    await write(database_url, [charged(NOON, 1, provider_ref=f"ch_{number}") for number in range(2 * MAX_UNANSWERED)])
    with pytest.raises(ListingFailed, match=f"did not answer {MAX_UNANSWERED} look-ups"):
        await compared(database_url, Answers(answer=Unavailable("away", retry_after=timedelta(0))))


async def test_look_ups_for_decisions_end_when_the_provider_stays_away(
    database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [Row(accepted=NOON, status="needs_review").event("needs_review", NOON, "needs_review") for _ in range(5)]
    await write(database_url, rows)
    calls = 0

    async def away(*given: Any, **named: Any) -> Unavailable:
        nonlocal calls
        calls += 1
        return Unavailable("away", retry_after=timedelta(0))

    monkeypatch.setattr(OkaneHttpProvider, "look_up", away)
    async with reconciling(database_url, redis_url, Books(), tmp_path, monkeypatch) as command:
        result = await command("--resolve", "--json")
    assert [one["step"] for one in document(result)["resolutions"]] == ["kept"] * 5
    assert calls == 3 * 4  # each of three with its repeats


async def test_what_a_worker_looks_up_is_waited_for_and_no_difference_is_left(
    database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    books = Books()
    rows = [Row(accepted=NOON, status="unknown").event("unknown", NOON, "unknown") for _ in range(3)]
    names = [books.charge(row, NOON) for row in rows]
    await write(database_url, rows)
    store = PaymentStore(database_url, actor="worker", lease=LEASE, grace=GRACE)

    async def work() -> None:
        """Claim each once it is due, and settle it as found."""
        for row, name in zip(rows, names, strict=True):
            while not isinstance(claim := await store.claim(row.id), Claim):
                await asyncio.sleep(0.02)
            assert await store.settle(settlement(claim.payment, provider="http", provider_ref=name)) is not None

    async with reconciling(database_url, redis_url, books, tmp_path, monkeypatch) as command:
        monkeypatch.setattr("okane.reconcile.resolve.WAIT_S", 60.0)
        result, _ = await asyncio.gather(command("--resolve", "--json"), work())
    await store.aclose()
    found = document(result)
    assert (result.exit_code, found["differences_left"]) == (0, 0)
    assert [(one["kind"], one["resolved"]) for one in found["differences"]] == [("status", True)] * 3
    assert await kept(database_url) == [{}]


@contextlib.asynccontextmanager
async def holding_provider(
    books: Books, folder: Path, held_path: str
) -> AsyncIterator[tuple[str, asyncio.Event, asyncio.Event]]:
    """Serve these books; yield the address, the event that the first request of this path waits, and that of its release."""
    journal = folder / "provider.jsonl"
    await asyncio.to_thread(books.write, journal)
    arrived, release = asyncio.Event(), asyncio.Event()

    @web.middleware
    async def hold(request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path == held_path and not arrived.is_set():
            arrived.set()
            await release.wait()
        answer: web.StreamResponse = await handler(request)
        return answer

    application = build_app(SimulatorOptions(port=0, journal=journal))
    application.middlewares.append(hold)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", arrived, release
    finally:
        await runner.cleanup()


async def started(folder: Path, database_url: str, redis_url: str, provider_url: str) -> asyncio.subprocess.Process:
    """Start `okane reconcile --resolve` as a process of its own, in another time zone."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "PROVIDER_BASE_URL": provider_url,
        "TZ": "America/New_York",
        "PGTZ": "Asia/Kathmandu",
    }
    words = ("reconcile", "--provider", "http", "--day", TEXT_DAY, "--resolve", "--json")
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "okane", *words),
        cwd=folder,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def finished(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """Return what the process has printed. Everything was compared, and no difference is left."""
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, err.decode()
    found: dict[str, Any] = json.loads(out)
    assert found["differences_left"] == 0
    return found


async def kept(database_url: str) -> list[dict[str, int]]:
    """Return the differences in the results that were kept."""
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        return [
            row[0] for row in await (await connection.execute("SELECT differences FROM reconciliations")).fetchall()
        ]


async def decided(database_url: str) -> list[UUID]:
    """Return the payments that were decided, by their events: each once, with its payment a success."""
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        cursor = await connection.execute(
            "SELECT e.payment_id FROM payment_events e JOIN payments p ON p.id = e.payment_id AND p.version = e.version "
            "WHERE e.event = 'resolved' AND e.status = 'success' AND p.status = 'success' ORDER BY e.payment_id"
        )
        found = [row[0] for row in await cursor.fetchall()]
        cursor = await connection.execute("SELECT count(*) FROM payment_events WHERE event = 'resolved'")
        assert await cursor.fetchone() == (len(found),)
        return found


async def in_review(url: str, books: Books, count: int) -> list[UUID]:
    """Write payments that need a review, and that the provider has charged. Return their ids in order."""
    rows = [Row(accepted=NOON, status="needs_review").event("needs_review", NOON, "needs_review") for _ in range(count)]
    for row in rows:
        books.charge(row, NOON)
    await write(url, rows)
    return sorted(row.id for row in rows)


async def test_a_process_that_is_killed_between_decisions_has_made_whole_ones_and_the_next_makes_the_rest(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    books = Books()
    ids = await in_review(database_url, books, 4)
    async with holding_provider(books, tmp_path, f"/charges/{ids[2]}") as (url, arrived, _):
        process = await started(tmp_path, database_url, redis_url, url)
        await asyncio.wait_for(arrived.wait(), 120)
        process.send_signal(signal.SIGKILL)
        await process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert (await decided(database_url), await kept(database_url)) == (ids[:2], [])
        found = await finished(await started(tmp_path, database_url, redis_url, url))
    assert sorted(one["payment_id"] for one in found["resolutions"]) == [str(id_) for id_ in ids[2:]]
    assert (await decided(database_url), await kept(database_url)) == (ids, [{}])


async def test_two_processes_at_once_make_each_decision_once_and_leave_no_difference(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    books = Books()
    ids = await in_review(database_url, books, 8)
    async with holding_provider(books, tmp_path, f"/charges/{ids[0]}") as (url, arrived, release):
        # The first one waits in the middle, with its list read, while the second decides everything. Then both end.
        first = await started(tmp_path, database_url, redis_url, url)
        await asyncio.wait_for(arrived.wait(), 120)
        await finished(await started(tmp_path, database_url, redis_url, url))
        assert await decided(database_url) == ids
        release.set()
        await finished(first)
    assert (await decided(database_url), await kept(database_url)) == (ids, [{}])
