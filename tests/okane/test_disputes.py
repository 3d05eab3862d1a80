"""Disputes: noticed, fetched, and written once with the event of their payment, in whatever order their notices come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from structlog.testing import capture_logs

from okane.client import Client
from okane.client import NotFound as NotFoundAtApi
from okane.dispute import OVER, DisputeStatus
from okane.errors import StoreUnavailable
from okane.payment import Payment, Status
from okane.providers.base import NotFound, ReportedDispute, Unavailable, Unknown
from okane.providers.config import HTTP
from okane.store import Overview, ProviderEvent, WebhookEventStore, disputes
from okane.store.disputes import SQL, DisputeLists, DisputeStore, DueFetch, FetchedDispute
from okane.webhooks import payload
from okane.worker.dispute_follow_up import MOST_TRIES, DisputeFollowUp
from tests.okane.api_requests import get
from tests.okane.notice_books import STRIPE, Books, books
from tests.okane.served_api import serve_api
from tests.okane.stored_payments import execute

__all__ = ["books"]

DUE_BY = datetime(2026, 12, 9, 23, 59, 59, tzinfo=UTC)
SUBSCRIBE = "INSERT INTO webhook_accounts (account_id) VALUES ('default')"

Answer = ReportedDispute | NotFound | Unavailable | Unknown


@dataclass
class Bank:
    """A provider that answers as told, once it may."""

    answers: list[Answer] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def fetch_dispute(self, ref: str) -> Answer:
        self.asked.append(ref)
        await self.may_answer.wait()
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@dataclass
class Desk:
    """A payment, its provider's disputes, and the duty of a worker."""

    books: Books
    payment: Payment
    store: DisputeStore
    lists: DisputeLists
    bank: Bank
    duty: DisputeFollowUp

    async def notice(self, event_id: str = "evt_1", ref: str = "dp_1", kind: str = "charge.dispute.created") -> str:
        event = ProviderEvent(event_id, kind, None, None, dispute_ref=ref)
        [taken] = await self.books.events.take(STRIPE, [event])
        return taken.result

    def reported(self, status: DisputeStatus = DisputeStatus.NEEDS_RESPONSE, **more: Any) -> ReportedDispute:
        plain = ReportedDispute("dp_1", self.payment.id, 440, "USD", status, "fraudulent", DUE_BY)
        return replace(plain, **more)

    async def history(self) -> list[tuple[Any, ...]]:
        return await self.rows(
            "SELECT version, event, status, attempt, actor, reason FROM payment_events WHERE event LIKE 'dispute%%'"
            " ORDER BY version"
        )

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        async with await psycopg.AsyncConnection.connect(self.books.url, autocommit=True) as connection:
            return await (await connection.execute(query.encode())).fetchall()

    async def make_due(self) -> None:
        await execute(self.books.url, "UPDATE dispute_notices SET due_at = now()", [])


@pytest.fixture
async def desk(books: Books) -> AsyncIterator[Desk]:
    payment = await books.payment(Status.SUCCESS)
    store, lists, bank = DisputeStore(books.url, actor="w1"), DisputeLists(books.url), Bank()
    bank.may_answer.set()
    duty = DisputeFollowUp(disputes=store, sources={STRIPE: bank}, interval=timedelta(milliseconds=1))
    one = Desk(books, payment, store, lists, bank, duty)
    bank.answers = [one.reported()]
    yield one
    await store.aclose()
    await lists.aclose()


async def test_a_noticed_dispute_is_fetched_listed_and_on_the_timeline(desk: Desk) -> None:
    assert [await desk.notice(), await desk.notice()] == ["taken", "repeated"]
    with capture_logs() as logs:
        assert [await desk.duty.run_once() for _ in range(2)] == [1, 0]
    assert desk.bank.asked == ["dp_1"]
    [dispute] = (await desk.lists.page("default", limit=9)).disputes
    assert (dispute.payment_id, dispute.provider, dispute.provider_ref) == (desk.payment.id, STRIPE, "dp_1")
    assert (dispute.amount_minor, dispute.currency, dispute.due_by) == (440, "USD", DUE_BY)
    assert (dispute.status, dispute.reason) == (DisputeStatus.NEEDS_RESPONSE, "fraudulent")
    version = desk.payment.version + 1
    reason = "stripe dp_1: fraudulent, needs_response"
    assert await desk.history() == [(version, "dispute_opened", "success", desk.payment.attempts, "w1", reason)]
    after = await desk.books.payments.get(desk.payment.id, account_id="default")
    assert (after.status, after.version) == (Status.SUCCESS, version)
    assert [(one["event"], one["outcome"]) for one in logs] == [("payment_disputed", "dispute_opened")]


async def test_each_opening_and_close_is_one_event_and_other_changes_are_none(desk: Desk) -> None:
    desk.bank.answers = [
        desk.reported(),
        desk.reported(DisputeStatus.UNDER_REVIEW, due_by=None),
        desk.reported(DisputeStatus.LOST),
        desk.reported(DisputeStatus.LOST),
    ]
    for number in range(4):
        assert await desk.notice(f"evt_{number}") == "taken"
        assert await desk.duty.run_once() == 1
    assert [row[1] for row in await desk.history()] == ["dispute_opened", "dispute_closed"]
    [dispute] = (await desk.lists.page("default", limit=9)).disputes
    assert dispute.status is DisputeStatus.LOST


async def test_a_dispute_that_is_seen_first_when_it_is_over_is_closed_only(desk: Desk) -> None:
    desk.bank.answers = [desk.reported(DisputeStatus.WON)]
    await desk.notice(kind="charge.dispute.closed")
    await desk.duty.run_once()
    assert [row[1] for row in await desk.history()] == ["dispute_closed"]


async def test_an_answer_from_before_a_newer_notice_counts_for_nothing(desk: Desk) -> None:
    await desk.notice("evt_1")
    desk.bank.may_answer.clear()
    earlier = asyncio.create_task(desk.duty.run_once())
    while not desk.bank.asked:
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
    await desk.notice("evt_2", kind="charge.dispute.closed")
    desk.bank.answers = [desk.reported(), desk.reported(DisputeStatus.WON)]
    desk.bank.may_answer.set()
    assert await earlier == 0
    assert await desk.history() == []
    assert await desk.duty.run_once() == 1
    assert [row[1] for row in await desk.history()] == ["dispute_closed"]


async def test_a_fetch_that_two_workers_make_is_written_once(desk: Desk) -> None:
    await desk.notice()
    [first] = await desk.store.claim([STRIPE])
    await desk.make_due()  # the first worker has stopped
    [second] = await desk.store.claim([STRIPE])
    found = FetchedDispute(desk.payment.id, 440, "USD", DisputeStatus.NEEDS_RESPONSE, None, None)
    results = [await desk.store.write(due, found) for due in (first, second, second)]
    assert [one.written for one in results] == [False, True, False]
    assert len(await desk.history()) == 1


@pytest.mark.parametrize("answer", [Unavailable("HTTP 503"), Unknown("no answer"), NotFound()])
async def test_a_dispute_that_cannot_be_fetched_is_tried_again_later_each_time(desk: Desk, answer: Answer) -> None:
    await desk.notice()
    desk.bank.answers = [answer]
    for _ in range(2):
        await desk.make_due()
        with capture_logs() as logs:
            assert await desk.duty.run_once() == 0
        assert [one["event"] for one in logs] == ["dispute_not_fetched"]
    [(tries, wait_s)] = await desk.rows("SELECT tries, extract(epoch FROM due_at - now())::int FROM dispute_notices")
    assert tries == 2
    assert 100 < wait_s <= 120
    desk.bank.answers = [desk.reported()]
    await desk.make_due()
    assert await desk.duty.run_once() == 1


async def test_a_dispute_that_its_provider_does_not_have_is_given_up_after_a_day(desk: Desk) -> None:
    await desk.notice()
    desk.bank.answers = [NotFound()]
    await execute(desk.books.url, "UPDATE dispute_notices SET tries = %s", [MOST_TRIES - 1])
    with capture_logs() as logs:
        await desk.duty.run_once()
    assert [one["event"] for one in logs] == ["dispute_not_found"]
    assert await desk.rows("SELECT FROM dispute_notices") == []


@pytest.mark.parametrize("payment_id", [None, uuid4()])
async def test_a_dispute_of_no_payment_here_is_forgotten(desk: Desk, payment_id: UUID | None) -> None:
    await desk.notice()
    desk.bank.answers = [desk.reported(payment_id=payment_id)]
    assert await desk.duty.run_once() == 0
    assert await desk.rows("SELECT FROM dispute_notices") == []
    assert (await desk.lists.page("default", limit=9)).disputes == []


async def test_a_dispute_of_another_provider_does_not_reach_a_payment(desk: Desk) -> None:
    await desk.notice()
    await execute(desk.books.url, "UPDATE payments SET provider = 'payu'", [])
    assert await desk.duty.run_once() == 0
    assert await desk.history() == []


async def test_a_dispute_reaches_a_payment_of_before_version_4(desk: Desk) -> None:
    await execute(desk.books.url, "UPDATE payments SET provider = NULL, pinned = NULL", [])
    assert await desk.books.events.take(
        HTTP, [ProviderEvent("evt_1", "dispute.opened", None, None, dispute_ref="dp_1")]
    )
    duty = DisputeFollowUp(disputes=desk.store, sources={HTTP: desk.bank}, interval=timedelta(milliseconds=1))
    assert await duty.run_once() == 1
    [dispute] = (await desk.lists.page("default", limit=9)).disputes
    assert (dispute.payment_id, dispute.provider) == (desk.payment.id, HTTP)


async def test_an_endpoint_gets_the_dispute_as_it_was_then(desk: Desk) -> None:
    await execute(desk.books.url, SUBSCRIBE, [])
    events = WebhookEventStore(desk.books.url)
    await desk.notice("evt_1")
    await desk.duty.run_once()
    await events.sequence()
    desk.bank.answers = [desk.reported(DisputeStatus.WON, amount_minor=400, due_by=None)]
    await desk.notice("evt_2")
    await desk.duty.run_once()
    await events.sequence()
    rows = (await events.page("default", 0, 9)).rows
    await events.aclose()
    assert [row.event.type for row in rows] == ["dispute.opened", "dispute.closed"]
    shown = [row.dispute for row in rows]
    assert shown[0] is not None
    assert shown[1] is not None
    assert [(one.status, one.amount_minor, one.due_by) for one in shown if one is not None] == [
        ("needs_response", 440, DUE_BY),
        ("won", 400, None),
    ]
    assert b'"dispute":{"id":' in payload.body(rows[0], _Format())


@dataclass
class _Format:
    payload: Any = "snapshot"
    api_version: str = "2026-12-01"


def test_the_statements_know_which_disputes_are_over() -> None:
    assert SQL["over"].endswith(f"({', '.join(repr(one.value) for one in DisputeStatus if one in OVER)})")


async def test_the_disputes_that_wait_for_evidence_are_counted_by_provider(desk: Desk) -> None:
    overview = Overview(desk.books.url)
    await desk.notice()
    await desk.duty.run_once()
    assert await overview.count_disputes() == {STRIPE: 1}
    desk.bank.answers = [desk.reported(DisputeStatus.UNDER_REVIEW)]
    await desk.notice("evt_2")
    await desk.duty.run_once()
    assert await overview.count_disputes() == {}
    await overview.aclose()


async def test_the_duty_goes_on_after_an_outage_and_after_a_bug(desk: Desk) -> None:
    await desk.notice()
    stop, rounds = asyncio.Event(), 0

    class Failing(DisputeStore):
        async def claim(self, providers: Collection[str]) -> Sequence[DueFetch]:
            nonlocal rounds
            rounds += 1
            if rounds < 3:
                raise StoreUnavailable("away") if rounds == 1 else RuntimeError("a bug")
            stop.set()
            return await super().claim(providers)

    failing = Failing(desk.books.url, actor="w1")
    with capture_logs() as logs:
        await DisputeFollowUp(disputes=failing, sources={STRIPE: desk.bank}, interval=timedelta(milliseconds=1)).run(
            stop
        )
    await failing.aclose()
    assert [one["event"] for one in logs if one["log_level"] != "debug"] == ["disputes_failed", "payment_disputed"]
    assert len(await desk.history()) == 1


async def test_disputes_are_listed_and_shown_over_http(desk: Desk, redis_url: str) -> None:
    await desk.notice()
    await desk.duty.run_once()
    async for api in serve_api(desk.books.url, redis_url):
        _, page = await get(api, "/v1/disputes")
        [dispute] = page["disputes"]
        assert (dispute["payment"], dispute["amount"], dispute["status"]) == (
            str(desk.payment.id),
            440,
            "needs_response",
        )
        assert dispute["due_by"] == "2026-12-09T23:59:59.000000Z"
        assert (await get(api, f"/v1/disputes/{dispute['id']}"))[1] == {"dispute": dispute}
        for query, count in (
            ("status=needs_response&status=lost", 1),
            ("status=lost", 0),
            ("provider=stripe", 1),
            ("provider=payu", 0),
            (f"payment={desk.payment.id}&status=needs_response", 1),
            (f"payment={uuid4()}", 0),
        ):
            assert len((await get(api, f"/v1/disputes?{query}"))[1]["disputes"]) == count, query
        for query in ("status=open", "payment=x", "reason=fraudulent"):
            response, problem = await get(api, f"/v1/disputes?{query}")
            assert (response.status, problem["code"]) == (400, "query_invalid")
        for path in (str(uuid4()), "x", "%ff"):
            response, problem = await get(api, f"/v1/disputes/{path}")
            assert (response.status, problem["code"]) == (404, "dispute_not_found")
        await the_client_reads_the_same(api.url, dispute)


async def the_client_reads_the_same(url: str, dispute: dict[str, Any]) -> None:
    async with Client(url, patience_s=2.0) as client:
        which: dict[str, Any] = {
            "status": [DisputeStatus.NEEDS_RESPONSE, DisputeStatus.WON],
            "provider": STRIPE,
            "payment_id": dispute["payment"],
        }
        [found] = [one async for one in client.disputes.list(**which)]
        assert found == await client.disputes.get(dispute["id"])
        assert (str(found.id), found.amount, found.due_by) == (dispute["id"], 440, DUE_BY)
        assert [one async for one in client.disputes.list(status=[DisputeStatus.LOST])] == []
        with pytest.raises(NotFoundAtApi):
            await client.disputes.get(uuid4())
        with pytest.raises(ValueError, match="is not a dispute's id"):
            await client.disputes.get("dp_1")
        with pytest.raises(TypeError):
            client.disputes.list(status="won")  # type: ignore[arg-type] # a text in the place of a list


async def test_disputes_are_paged_newest_first_and_seen_by_their_account_only(desk: Desk) -> None:
    for number in range(3):
        desk.bank.answers = [desk.reported(provider_ref=f"dp_{number}")]
        await desk.notice(f"evt_{number}", f"dp_{number}")
        await desk.duty.run_once()
    first = await desk.lists.page("default", limit=2)
    last = await desk.lists.page("default", limit=2, after=first.after)
    assert [one.provider_ref for one in (*first.disputes, *last.disputes)] == ["dp_2", "dp_1", "dp_0"]
    assert last.after is None
    assert (await desk.lists.page("other", limit=2)).disputes == []
    assert await desk.lists.get("other", first.disputes[0].id) is None
    assert [row[1] for row in await desk.history()] == ["dispute_opened"] * 3


async def test_a_list_reads_a_bounded_number_of_disputes_and_goes_on_from_there(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disputes, "WINDOW", 2)
    for number in range(4):
        status = DisputeStatus.LOST if number == 0 else DisputeStatus.WON
        desk.bank.answers = [desk.reported(status, provider_ref=f"dp_{number}")]
        await desk.notice(f"evt_{number}", f"dp_{number}")
        await desk.duty.run_once()
    lost, pages, after = {DisputeStatus.LOST}, [], None
    while True:
        page = await desk.lists.page("default", statuses=lost, limit=9, after=after)
        pages.append([one.provider_ref for one in page.disputes])
        after = page.after
        if after is None:
            break
    assert pages == [[], ["dp_0"], []]
