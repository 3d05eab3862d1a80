"""The PayU adapter against a simulator that others wrote: orders, pages, notices, look-ups, and calls that go wrong."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from aiohttp import web

from okane.local.ports import free_port
from okane.payment import Payment
from okane.providers.base import Approved, Declined, InvalidNotice, Notice, Pending, Unavailable, Unknown
from okane.providers.payu.provider import PayuProvider
from okane.providers.payu.webhook import notice_parser
from tests.conformance.payu_simulator import MAX_CALLS, SECOND_KEY, Fault, Simulator, Way, payu_simulator, way_to
from tests.conformance.simulators import running
from tests.payments import PAYMENT

RETURN_URL = "http://127.0.0.1/back"


@dataclass(slots=True)
class Notices:
    """The webhooks that the simulator has sent to us."""

    url: str = ""
    arrived: asyncio.Queue[tuple[dict[str, str], bytes]] = field(default_factory=asyncio.Queue)

    async def take(self, request: web.Request) -> web.Response:
        headers = {name.lower(): text for name, text in request.headers.items()}
        await self.arrived.put((headers, await request.read()))
        return web.Response()

    async def next(self) -> tuple[dict[str, str], bytes]:
        async with asyncio.timeout(30):
            return await self.arrived.get()


@dataclass(slots=True)
class Gateway:
    """The adapter, the way to the simulator, and the customer at its page."""

    provider: PayuProvider
    way: Way
    notices: Notices

    async def open_page(self, pending: Pending, action: str) -> None:
        """Approve or reject the payment on the page of the order."""
        assert pending.next_action is not None
        await self._answer_page(pending.next_action.url, action)

    async def approve(self, order_id: str) -> None:
        """Pay an order whose page we were not told."""
        await self._answer_page(f"{self.way.simulator.url}/sim/payu/authorize/{order_id}", "approve")

    async def orders(self) -> frozenset[str]:
        """Return the ids of all orders, from the simulator's own dashboard."""
        async with self.way.session.get(f"{self.way.simulator.url}/sim/") as answer:
            return frozenset(re.findall(r"/sim/payu/authorize/(\w+)", await answer.text()))

    async def _answer_page(self, url: str, action: str) -> None:
        async with self.way.session.post(url, data={"action": action}, allow_redirects=False) as answer:
            assert 300 <= answer.status < 400
            assert answer.headers["Location"] == RETURN_URL


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    port = free_port()
    with running(payu_simulator(port=port, log=tmp_path_factory.mktemp("payu") / "payu.log")):
        started = Simulator(f"http://127.0.0.1:{port}")
        yield started
        assert started.calls <= MAX_CALLS


@pytest.fixture
async def gateway(simulator: Simulator) -> AsyncIterator[Gateway]:
    notices = Notices()
    app = web.Application()
    app.router.add_post("/webhook", notices.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    notices.url = f"http://127.0.0.1:{runner.addresses[0][1]}/webhook"
    async with way_to(simulator) as way, adapter(way, notices.url) as provider:
        yield Gateway(provider, way, notices)
    await runner.cleanup()


def adapter(way: Way, notify_url: str) -> PayuProvider:
    return PayuProvider(
        base_url=way.base_url,
        pos_id="300746",
        client_id="300746",
        client_secret=lambda: "2ee86a66e5d97e3fadc400c9f19b065d",
        notify_url=notify_url,
        timeout=timedelta(seconds=10),
    )


def new_payment() -> Payment:
    payment_id = uuid4()
    return replace(PAYMENT, id=payment_id, provider_key=str(payment_id), currency="PLN", return_url=RETURN_URL)


def after(payment: Payment, pending: Pending) -> Payment:
    """The payment as the row has it once the answer is settled."""
    return replace(payment, attempt_ref=pending.provider_ref, next_action=pending.next_action)


async def ordered(gateway: Gateway) -> tuple[Payment, Pending]:
    payment = new_payment()
    result = await gateway.provider.charge(payment)
    assert isinstance(result, Pending)
    assert result.provider_ref == gateway.way.orders[payment.provider_key]
    return after(payment, result), result


async def test_an_order_waits_for_the_customer_and_is_approved_once_it_is_paid(gateway: Gateway) -> None:
    payment, pending = await ordered(gateway)
    assert await gateway.provider.look_up(payment, may_execute=False) == pending
    await gateway.open_page(pending, "approve")
    assert await gateway.provider.look_up(payment, may_execute=False) == Approved(pending.provider_ref)


async def test_a_rejected_order_is_declined(gateway: Gateway) -> None:
    payment, pending = await ordered(gateway)
    await gateway.open_page(pending, "reject")
    declined = Declined("canceled", provider_ref=pending.provider_ref)
    assert await gateway.provider.look_up(payment, may_execute=True) == declined


@pytest.mark.parametrize(("action", "kind"), [("approve", "order.completed"), ("reject", "order.canceled")])
async def test_a_notice_is_verified_and_names_the_payment_and_the_order(
    gateway: Gateway, action: str, kind: str
) -> None:
    payment, pending = await ordered(gateway)
    await gateway.open_page(pending, action)
    headers, body = await gateway.notices.next()
    [notice] = parse(headers, body, SECOND_KEY)
    assert (notice.kind, notice.payment_id, notice.provider_ref) == (kind, payment.id, pending.provider_ref)
    with pytest.raises(InvalidNotice):
        parse(headers, body, "another key")
    with pytest.raises(InvalidNotice):
        parse(headers, body.replace(b"PLN", b"EUR"), SECOND_KEY)


def parse(headers: dict[str, str], body: bytes, *keys: str) -> Sequence[Notice]:
    return notice_parser(lambda: keys)(headers, body, now=datetime.now(UTC))


@pytest.mark.parametrize("fault", [Fault.LOST_ANSWER, Fault.ERROR_500_AFTERWARDS])
async def test_an_order_whose_answer_was_lost_is_found_by_its_notice_and_never_made_twice(
    gateway: Gateway, fault: Fault
) -> None:
    before = await gateway.orders()
    gateway.way.faults = [fault]
    payment = new_payment()
    assert isinstance(await gateway.provider.charge(payment), Unknown)
    assert isinstance(await gateway.provider.look_up(payment, may_execute=True), Unknown)
    order_id = gateway.way.orders[payment.provider_key]
    await gateway.approve(order_id)
    [notice] = parse(*await gateway.notices.next(), SECOND_KEY)
    assert notice.payment_id == payment.id
    known = replace(payment, attempt_ref=notice.provider_ref)
    assert await gateway.provider.look_up(known, may_execute=True) == Approved(order_id)
    assert await gateway.orders() - before == {order_id}


async def test_an_order_that_the_refusal_of_a_repeat_names_is_found_without_a_notice(gateway: Gateway) -> None:
    gateway.way.faults = [Fault.LOST_ANSWER]
    gateway.way.names_existing = True
    payment = new_payment()
    assert isinstance(await gateway.provider.charge(payment), Unknown)
    order_id = gateway.way.orders[payment.provider_key]
    assert await gateway.provider.look_up(payment, may_execute=True) == Pending(order_id)
    await gateway.approve(order_id)
    assert await gateway.provider.look_up(payment, may_execute=True) == Approved(order_id)


@pytest.mark.parametrize("fault", [Fault.LOST_REQUEST, Fault.ERROR_500])
async def test_an_order_that_never_arrived_is_made_by_the_look_up(gateway: Gateway, fault: Fault) -> None:
    before = await gateway.orders()
    gateway.way.faults = [fault]
    payment = new_payment()
    assert isinstance(await gateway.provider.charge(payment), Unknown)
    assert isinstance(await gateway.provider.look_up(payment, may_execute=False), Unknown)
    assert await gateway.orders() == before
    result = await gateway.provider.look_up(payment, may_execute=True)
    assert isinstance(result, Pending)
    assert result.next_action is not None
    assert await gateway.orders() - before == {result.provider_ref}


async def test_two_charges_under_one_key_make_one_order(gateway: Gateway) -> None:
    before = await gateway.orders()
    payment, pending = await ordered(gateway)
    assert isinstance(await gateway.provider.charge(payment), Unknown)
    assert await gateway.orders() - before == {pending.provider_ref}


async def test_a_limit_is_deferred_and_a_refused_token_replaced(gateway: Gateway) -> None:
    gateway.way.faults = [Fault.RATE_LIMIT, Fault.UNAUTHORIZED]
    payment = new_payment()
    assert await gateway.provider.charge(payment) == Unavailable("HTTP 429", fault="limit")
    assert isinstance(await gateway.provider.charge(payment), Pending)
    tokens = [call for call in gateway.way.calls if call.endswith("/oauth/authorize")]
    assert len(tokens) == 2


async def test_a_token_that_payu_never_issued_is_our_configuration(gateway: Gateway) -> None:
    gateway.way.faults = [Fault.UNAUTHORIZED, Fault.UNAUTHORIZED]
    assert await gateway.provider.charge(new_payment()) == Unavailable("HTTP 401 UNAUTHORIZED", fault="config")


async def test_an_order_of_another_amount_needs_a_review_at_once(gateway: Gateway) -> None:
    payment, pending = await ordered(gateway)
    await gateway.open_page(pending, "approve")
    result = await gateway.provider.look_up(replace(payment, amount_minor=441), may_execute=False)
    assert result == Unknown("PayU answered for 440 PLN, not 441 PLN", at_once=True)


async def test_an_order_that_payu_does_not_know_stays_unknown(gateway: Gateway) -> None:
    payment = replace(new_payment(), attempt_ref="a" * 32)
    result = await gateway.provider.look_up(payment, may_execute=True)
    assert result == Unknown("HTTP 404 ERROR_ORDER_NOT_EXISTS")


async def test_many_payments_at_the_same_time_share_a_token_and_get_an_order_each(gateway: Gateway) -> None:
    payments = [new_payment() for _ in range(40)]
    results = await asyncio.gather(*(gateway.provider.charge(payment) for payment in payments))
    refs = {result.provider_ref for result in results if isinstance(result, Pending)}
    assert len(refs) == 40
    assert len(gateway.way.calls) == 41
