"""The gateway of torture: it keeps Stripe's promises, also over kill -9, so that what torture finds is okane's."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from aiohttp import web
from aiohttp.test_utils import TestServer

from okane.payment import Payment
from okane.providers.base import Approved, Declined, NotFound, Notice, Pending, ReportedDispute, Unavailable, Unknown
from okane.providers.stripe.provider import StripeProvider
from okane.providers.stripe.webhook import StripeNoticeParser
from tests.okane.stripe_answers import CARD_PAYMENT
from torture.gateway.books import Books, Dispute, Intent, Refund, Saved, read_intents
from torture.gateway.server import Behaviour, Gateway
from torture.history.disputes import read_booked
from torture.history.journals import read_gateway_charges
from torture.history.methods import read_method_charges

SECRET = "whsec_test"
INTENT = Intent(
    ref="pi_1", key="k", payment_id="p", amount=440, currency="usd", status="processing", at_s=1_767_225_600.5
)
CALM = Behaviour(
    decline=0, action=0, processing=0, limit=0, refuse=0, dispute=0, lose_notice=0, double_notice=0, latency_s=0
)
REFUND = Refund(
    ref="re_1",
    key="r",
    operation_id="01a22eea-46fc-7442-9a3d-0e7cdde40002",
    payment_id="01a22ee9-edfb-7289-acab-7f2f487800ec",
    intent="pi_1",
    amount=400,
    currency="usd",
    status="succeeded",
    at_s=1.0,
)
DISPUTE = Dispute(
    ref="du_1", intent="pi_1", payment_id="p", amount=440, currency="usd", status="needs_response", at_s=1.0
)
CUSTOMER = replace(CARD_PAYMENT, return_url="https://shop.example/done")


@contextlib.asynccontextmanager
async def served(
    journal: Path, behaviour: Behaviour = CALM, notify: str = "http://127.0.0.1:9/"
) -> AsyncIterator[tuple[Gateway, StripeProvider]]:
    """Serve a gateway inside the block, and yield it with the product's adapter."""
    gateway = Gateway(Books(journal), notify=[notify], secret=SECRET, dice=random.Random(1))
    gateway.behaviour = behaviour
    async with (
        TestServer(gateway.app()) as server,
        StripeProvider(
            str(server.make_url("/")), api_key=lambda: "sk_test_1", timeout=timedelta(seconds=2)
        ) as provider,
    ):
        yield gateway, provider


async def look_up(provider: StripeProvider, payment: Payment = CARD_PAYMENT) -> object:
    return await provider.look_up(payment, may_execute=False)


def test_the_books_are_the_same_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    saved = Saved("amount=440", 200, "{}")
    books = Books(path)
    books.make(INTENT, saved)
    books.decide("pi_1", "succeeded")
    again = Books(path)  # the first one was never closed
    assert again.find_key("k") == saved
    assert again.find("pi_1") == replace(INTENT, status="succeeded")
    assert again.undecided() == []
    books.close()
    again.close()


def test_a_torn_line_is_left_out_and_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b'{"intent": {"ref": "pi_0", "ke')
    books = Books(path)
    books.make(INTENT, Saved("", 200, "{}"))
    books.close()
    assert read_intents(path) == [INTENT]


def test_the_journal_tells_what_became_of_each_intent(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    books = Books(path)
    books.make(INTENT, Saved("", 200, "{}"))
    assert [one.captured for one in read_gateway_charges(path)] == [False]
    books.decide("pi_1", "succeeded")
    books.close()
    [charge] = read_gateway_charges(path)
    assert (charge.provider, charge.key, charge.currency, charge.captured) == ("stripe", "k", "USD", True)


async def test_a_key_makes_one_intent_also_in_another_life(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    async with served(path) as (_, provider):
        first = await provider.charge(CARD_PAYMENT)
        assert isinstance(first, Approved)
    async with served(path) as (_, provider):
        assert await provider.charge(CARD_PAYMENT) == first
        assert await look_up(provider) == first
        other = await provider.charge(replace(CARD_PAYMENT, amount_minor=441))
        assert isinstance(other, Unknown)
        assert other.at_once
    assert len(read_intents(path)) == 1


async def test_what_was_never_charged_is_not_found(tmp_path: Path) -> None:
    async with served(tmp_path / "journal", replace(CALM, limit=1.0)) as (gateway, provider):
        limited = await provider.charge(CARD_PAYMENT)
        assert isinstance(limited, Unavailable)
        assert limited.fault == "limit"
        gateway.behaviour = replace(CALM, refuse=1.0)
        assert isinstance(await provider.charge(CARD_PAYMENT), Unknown)
        assert await look_up(provider) == NotFound()


async def test_a_saved_failure_is_repeated_and_its_charge_found(tmp_path: Path) -> None:
    async with served(tmp_path / "journal", replace(CALM, fail=1.0)) as (gateway, provider):
        assert isinstance(await provider.charge(CARD_PAYMENT), Unknown)
        gateway.behaviour = CALM
        assert isinstance(await provider.charge(CARD_PAYMENT), Unknown)
        assert isinstance(await look_up(provider), Approved)


async def test_a_decline_is_an_answer(tmp_path: Path) -> None:
    async with served(tmp_path / "journal", replace(CALM, decline=1.0)) as (_, provider):
        assert isinstance(await provider.charge(CARD_PAYMENT), Declined)
        assert isinstance(await look_up(provider), Declined)


@contextlib.asynccontextmanager
async def taken_notices(*, refused: int = 0) -> AsyncIterator[tuple[str, asyncio.Queue[Notice]]]:
    """Yield the URL of a receiver of notices, and those that it has taken: all but the first `refused`."""
    notices: asyncio.Queue[Notice] = asyncio.Queue()
    parse = StripeNoticeParser(lambda: [SECRET])
    left = refused

    async def take(request: web.Request) -> web.Response:
        nonlocal left
        if left:
            left -= 1
            return web.Response(status=503)
        headers = {name.lower(): value for name, value in request.headers.items()}
        for notice in parse(headers, await request.read(), now=datetime.now(UTC)):
            notices.put_nowait(notice)
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", take)
    async with TestServer(app) as api:
        yield str(api.make_url("/hook")), notices


async def test_what_is_decided_later_is_told_by_a_signed_notice(tmp_path: Path) -> None:
    async with (
        taken_notices() as (hook, notices),
        served(tmp_path / "journal", replace(CALM, action=1.0), hook) as (_, provider),
    ):
        pending = await provider.charge(CUSTOMER)
        assert isinstance(pending, Pending)
        assert pending.next_action is not None
        notice = await asyncio.wait_for(notices.get(), timeout=10)
        assert (notice.payment_id, notice.provider_ref) == (CUSTOMER.id, pending.provider_ref)
        decided = await provider.look_up(replace(CUSTOMER, attempt_ref=pending.provider_ref), may_execute=False)
        assert isinstance(decided, Approved | Declined)


async def test_the_token_of_a_saved_method_is_in_the_books(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    async with served(path) as (_, provider):
        await provider.charge(replace(CARD_PAYMENT, payment_method="cus_1/pm_1"))
    [charge] = read_method_charges(path)
    assert (charge.customer, charge.token, charge.off_session) == ("cus_1", "pm_1", True)


async def test_a_dispute_is_told_until_it_is_taken_and_can_be_fetched(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    async with (
        taken_notices(refused=1) as (hook, notices),
        served(path, replace(CALM, dispute=1.0, lose_notice=1.0), hook) as (_, provider),
    ):
        await provider.charge(CARD_PAYMENT)
        notice = await asyncio.wait_for(notices.get(), timeout=15)
        assert notice.dispute_ref is not None
        fetched = await provider.fetch_dispute(notice.dispute_ref)
        assert isinstance(fetched, ReportedDispute)
        assert (fetched.payment_id, fetched.amount_minor) == (CARD_PAYMENT.id, CARD_PAYMENT.amount_minor)
    [booked] = read_booked(path)
    assert (booked.ref, booked.payment_id) == (notice.dispute_ref, str(CARD_PAYMENT.id))


async def test_a_refund_that_came_back_is_told_again_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    books = Books(path)
    books.make(replace(INTENT, status="succeeded"), Saved("", 200, "{}"))
    books.refund(REFUND, Saved("", 200, "{}"))
    books.decide_refund(REFUND.ref, "failed")
    books.close()
    async with (
        taken_notices(refused=1) as (hook, notices),
        served(path, replace(CALM, lose_notice=1.0), hook) as (gateway, _),
    ):
        assert gateway.is_busy()
        notice = await asyncio.wait_for(notices.get(), timeout=15)
        assert notice.operation_id == UUID(REFUND.operation_id)
        while gateway.is_busy():
            await asyncio.sleep(0.01)


async def test_disputes_go_on_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    books = Books(path)
    books.make(replace(INTENT, status="succeeded"), Saved("", 200, "{}"))
    books.dispute(DISPUTE)
    books.close()
    async with served(path) as (gateway, _):
        for _ in range(200):
            if read_booked(path)[0].status == "lost":
                break
            await asyncio.sleep(0.05)
        assert gateway.books.find_dispute("du_1") == replace(DISPUTE, status="lost")
