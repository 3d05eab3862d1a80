"""Notices and disputes in okane's own protocol: the mock provider sends them, the adapter verifies and fetches."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from okane.dispute import DisputeStatus
from okane.http.connection import HttpResponse
from okane.providers.base import InvalidNotice, NotFound, Notice, ReportedDispute, Unavailable, Unknown
from okane.providers.okane_http.disputes import parse_dispute
from okane.providers.okane_http.provider import OkaneHttpProvider
from okane.providers.okane_http.webhook import OkaneHttpNoticeParser
from okane.simulator.app import serving
from okane.simulator.options import SimulatorOptions
from okane.webhooks.signing import sign
from tests.payments import NOW, PAYMENT

SECRET = "a-secret-of-the-mock-provider"
BODY = json.dumps(
    {"type": "refund.failed", "charge": "pk-1", "payment_id": str(PAYMENT.id), "provider_ref": "ch_1"}
).encode()


@dataclass
class Inbox:
    """An endpoint that refuses the first notice of each id, and takes it when it comes again."""

    arrived: asyncio.Queue[Notice] = field(default_factory=asyncio.Queue)
    refused: set[str] = field(default_factory=set)

    async def take(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        parse = OkaneHttpNoticeParser(lambda: [SECRET])
        [notice] = parse(headers, await request.read(), now=datetime.now(UTC))
        if notice.event_id not in self.refused:
            self.refused.add(notice.event_id)
            return web.Response(status=503)
        await self.arrived.put(notice)
        return web.Response()

    async def next(self) -> Notice:
        async with asyncio.timeout(10):
            return await self.arrived.get()


@asynccontextmanager
async def inbox() -> AsyncIterator[tuple[Inbox, str]]:
    one, app = Inbox(), web.Application()
    app.router.add_post("/webhook", one.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield one, f"http://127.0.0.1:{runner.addresses[0][1]}/webhook"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def mock(folder: Path, notify_url: str, **options: Any) -> AsyncIterator[str]:
    chosen = SimulatorOptions(
        journal=folder / "journal.jsonl",
        port=0,
        success=1,
        unavailable=0,
        decline=0,
        notify_url=notify_url,
        notify_secret=SECRET,
        **options,
    )
    async with serving(chosen) as url:
        yield url


async def post(url: str, body: Mapping[str, object], key: str = "k") -> Any:
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json=body, headers={"Idempotency-Key": key}) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def charge(url: str) -> Any:
    return await post(f"{url}/charges", {"payment_id": str(PAYMENT.id), "amount": 1000, "currency": "USD"}, "pk-1")


async def test_a_refund_that_fails_late_is_told_by_a_notice_that_names_it(tmp_path: Path) -> None:
    operation_id = uuid4()
    async with inbox() as (box, notify_url), mock(tmp_path, notify_url, failing_refunds=1, refund_delay_s=0.1) as url:
        charged = await charge(url)
        body = {"kind": "refund", "charge": "pk-1", "operation_id": str(operation_id), "payment_id": str(PAYMENT.id)}
        refund = await post(f"{url}/operations", body | {"amount": 400, "currency": "USD"}, str(operation_id))
        assert refund["status"] == "succeeded"
        notice = await box.next()
    assert notice == Notice(
        f"evt_{refund['provider_ref']}",
        "refund.failed",
        PAYMENT.id,
        charged["provider_ref"],
        provider_key="pk-1",
        is_refusal=True,
        operation_id=operation_id,
    )


async def test_a_notice_that_was_not_taken_is_sent_again_after_a_restart(tmp_path: Path) -> None:
    options = {"failing_refunds": 1, "refund_delay_s": 0.3}
    async with mock(tmp_path, "http://127.0.0.1:1/webhook", **options) as url:
        await charge(url)
        body = {"kind": "refund", "charge": "pk-1", "operation_id": "o", "payment_id": str(PAYMENT.id)}
        refund = await post(f"{url}/operations", body | {"amount": 400, "currency": "USD"}, "r")
    async with inbox() as (box, notify_url), mock(tmp_path, notify_url):
        notice = await box.next()
    assert (notice.event_id, notice.kind) == (f"evt_{refund['provider_ref']}", "refund.failed")


async def test_a_dispute_is_told_and_fetched_and_survives_a_restart(tmp_path: Path) -> None:
    async with inbox() as (box, notify_url):
        async with mock(tmp_path, notify_url) as url:
            await charge(url)
            due_by = "2027-01-01T00:00:00+00:00"
            opened = await post(f"{url}/disputes", {"charge": "pk-1", "amount": 700, "reason": "odd", "due_by": due_by})
            notice = await box.next()
            assert (notice.kind, notice.payment_id, notice.dispute_ref) == (
                "dispute.opened",
                PAYMENT.id,
                opened["dispute"],
            )
            expected = ReportedDispute(
                provider_ref=opened["dispute"],
                payment_id=PAYMENT.id,
                amount_minor=700,
                currency="USD",
                status=DisputeStatus.NEEDS_RESPONSE,
                reason="odd",
                due_by=datetime(2027, 1, 1, tzinfo=UTC),
            )
            assert await fetched(url, opened["dispute"]) == expected
            await post(f"{url}/disputes/{opened['dispute']}", {"status": "lost"})
            assert (await box.next()).kind == "dispute.closed"
        async with mock(tmp_path, notify_url) as url:
            found = await fetched(url, opened["dispute"])
            assert isinstance(found, ReportedDispute)
            assert found.status is DisputeStatus.LOST
            assert await fetched(url, "dp_none") == NotFound()


async def fetched(url: str, ref: str) -> object:
    async with OkaneHttpProvider(url, timeout=timedelta(seconds=5)) as provider:
        return await provider.fetch_dispute(ref)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("disputes", {"charge": "none"}, 404),
        ("disputes", {"charge": "pk-1", "amount": 1001}, 400),
        ("disputes", {"charge": "pk-1", "reason": ""}, 400),
        ("disputes/dp_none", {"status": "won"}, 404),
        ("disputes/dp_none", {"status": "forgotten"}, 400),
    ],
)
async def test_what_is_no_dispute_is_refused(
    tmp_path: Path, path: str, body: Mapping[str, object], status: int
) -> None:
    async with mock(tmp_path, "http://127.0.0.1:1/") as url, aiohttp.ClientSession() as session:
        await charge(url)
        async with session.post(f"{url}/{path}", json=body) as answer:
            assert answer.status == status


# The signature: that of Standard Webhooks, of which okane's own webhooks are the oracle


def headers(body: bytes = BODY, *, secret: str = SECRET, at: datetime = NOW, event_id: str = "evt_1") -> dict[str, str]:
    seconds = int(at.timestamp())
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": sign([secret.encode()], event_id, seconds, body),
    }


def parsed(
    given_headers: Mapping[str, str], body: bytes = BODY, secrets: Sequence[str] = (SECRET,)
) -> Sequence[Notice]:
    return OkaneHttpNoticeParser(lambda: secrets)(given_headers, body, now=NOW)


def test_a_signed_notice_is_taken_under_either_of_two_secrets() -> None:
    notice = Notice("evt_1", "refund.failed", PAYMENT.id, "ch_1", provider_key="pk-1", is_refusal=True)
    for secrets in ([SECRET], ["another", SECRET], [SECRET, "another"]):
        assert parsed(headers(), secrets=secrets) == [notice]


@pytest.mark.parametrize(
    ("given_headers", "body", "secrets"),
    [
        ({}, BODY, [SECRET]),
        (headers(), BODY + b" ", [SECRET]),
        (headers(), BODY, ["another"]),
        (headers(), BODY, [""]),
        (headers(), BODY, []),
        (headers() | {"webhook-id": "evt_2"}, BODY, [SECRET]),
        (headers() | {"webhook-timestamp": "1"}, BODY, [SECRET]),
        (headers() | {"webhook-timestamp": "x"}, BODY, [SECRET]),
        (headers() | {"webhook-signature": "v1,é"}, BODY, [SECRET]),
        (headers() | {"webhook-signature": "v1," * 500}, BODY, [SECRET]),
        (headers(at=NOW - timedelta(minutes=6)), BODY, [SECRET]),
        (headers(at=NOW + timedelta(minutes=6)), BODY, [SECRET]),
        (headers(b"[]"), b"[]", [SECRET]),
    ],
)
def test_a_forged_or_old_notice_is_refused(
    given_headers: Mapping[str, str], body: bytes, secrets: Sequence[str]
) -> None:
    with pytest.raises(InvalidNotice):
        parsed(given_headers, body, secrets)


VALUES = st.none() | st.integers() | st.text(max_size=20) | st.just(str(PAYMENT.id)) | st.just("needs_response")
NAMES = (
    "type",
    "charge",
    "payment_id",
    "operation_id",
    "provider_ref",
    "dispute",
    "amount",
    "currency",
    "status",
    "reason",
)


@given(st.dictionaries(st.sampled_from(NAMES), VALUES))
def test_any_signed_object_is_one_notice_whose_texts_can_be_stored(document: Mapping[str, object]) -> None:
    body = json.dumps(document).encode()
    [notice] = parsed(headers(body), body)
    for text in (notice.kind, notice.provider_ref, notice.provider_key, notice.dispute_ref):
        assert text is None or (text.isprintable() and 0 < len(text) <= 255)


@given(status=st.just(200) | st.integers(200, 599), document=st.dictionaries(st.sampled_from(NAMES), VALUES))
def test_a_dispute_is_taken_only_whole(status: int, document: Mapping[str, object]) -> None:
    answer = HttpResponse(status, json.dumps(document).encode(), None)
    result = parse_dispute(answer, "dp_1", now=NOW)
    if isinstance(result, ReportedDispute):
        assert (status, document["dispute"]) == (200, "dp_1")
        assert result.payment_id == UUID(str(document["payment_id"]))
    else:
        assert isinstance(result, Unknown | Unavailable)
