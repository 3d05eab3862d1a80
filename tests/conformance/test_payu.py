"""The PayU adapter against a simulator that others wrote: the suite of every adapter, and what is PayU's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest
from aiohttp import web

from okane.local.ports import free_port
from okane.payment import Payment
from okane.providers import capabilities
from okane.providers.base import Approved, Declined, InvalidNotice, Notice, Pending, Unavailable, Unknown
from okane.providers.payu.webhook import notice_parser
from tests.conformance import payu
from tests.conformance.bench import Bench, bench_of
from tests.conformance.cases import CASES, Case
from tests.conformance.fault_proxy import LOST_ANSWER, Fault
from tests.conformance.gateway import Wish
from tests.conformance.operation_cases import cases_of
from tests.conformance.payu import PayuGateway
from tests.conformance.payu_simulator import SECOND_KEY, payu_simulator
from tests.conformance.simulators import running

# PayU reports every decline of a card as a cancellation of its order.
LACKING = ("soft_decline", "a_declined_charge")
MAX_CALLS = 300
UNAUTHORIZED = Fault(status=401, body=b'{"status": {"statusCode": "UNAUTHORIZED"}}')


@dataclass(slots=True)
class Simulator:
    """The simulator of this module's tests, and how many calls the adapter has made."""

    url: str
    calls: int = 0


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    port = free_port()
    with running(payu_simulator(port=port, log=tmp_path_factory.mktemp("payu") / "payu.log")):
        one = Simulator(f"http://127.0.0.1:{port}")
        yield one
        assert one.calls <= MAX_CALLS


@dataclass(slots=True)
class Notices:
    """The webhooks that the simulator has sent to us."""

    arrived: asyncio.Queue[tuple[dict[str, str], bytes]] = field(default_factory=asyncio.Queue)

    async def take(self, request: web.Request) -> web.Response:
        headers = {name.lower(): text for name, text in request.headers.items()}
        await self.arrived.put((headers, await request.read()))
        return web.Response()

    async def next(self) -> tuple[dict[str, str], bytes]:
        async with asyncio.timeout(30):
            return await self.arrived.get()


@dataclass(slots=True)
class Shop:
    """A bench with PayU's own driver, and the notices of its orders."""

    bench: Bench
    gateway: PayuGateway
    notices: Notices

    async def order(self) -> tuple[Payment, Pending]:
        """Return a payment as its row is once its order is made."""
        payment = await self.bench.payment(Wish.WAITS)
        pending = await self.bench.charge(payment)
        assert isinstance(pending, Pending)
        assert pending.provider_ref == self.gateway.unique.order_ids[payment.provider_key]
        return replace(payment, attempt_ref=pending.provider_ref, next_action=pending.next_action), pending


@pytest.fixture
async def shop(simulator: Simulator) -> AsyncIterator[Shop]:
    notices = Notices()
    app = web.Application()
    app.router.add_post("/webhook", notices.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with payu.driver(simulator.url) as gateway:
            gateway.notify_url = f"http://127.0.0.1:{runner.addresses[0][1]}/webhook"
            async with bench_of(gateway) as bench:
                yield Shop(bench, gateway, notices)
            simulator.calls += len(bench.proxy.requests)
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    "case", [one for one in CASES if not any(word in one.__name__ for word in LACKING)], ids=lambda one: one.__name__
)
async def test_the_adapter_of_payu(case: Case, shop: Shop) -> None:
    await case(shop.bench)


# PayU takes no idempotency key: okane repeats a refund only after the list of refunds has said that there is none.
@pytest.mark.parametrize("case", cases_of(capabilities.PAYU, keys=False), ids=lambda one: one.__name__)
async def test_the_refunds_of_payu(case: Case, shop: Shop) -> None:
    await case(shop.bench)


@pytest.mark.parametrize(
    "case",
    cases_of(capabilities.PAYU_BY_HAND - capabilities.PAYU, keys=False),
    ids=lambda one: one.__name__,
)
async def test_the_captures_and_voids_of_a_shop_that_collects_by_hand(case: Case, shop: Shop) -> None:
    shop.gateway.automatic_collection = False
    async with bench_of(shop.gateway) as bench:
        await case(bench)


async def test_an_open_order_keeps_its_page(shop: Shop) -> None:
    payment, pending = await shop.order()
    assert pending.next_action is not None
    assert await shop.bench.look_up(payment) == pending


async def test_a_rejected_order_is_declined_with_its_reference(shop: Shop) -> None:
    payment, pending = await shop.order()
    await shop.gateway.finish(pending, succeeded=False)
    assert await shop.bench.look_up(payment) == Declined("canceled", provider_ref=pending.provider_ref)


@pytest.mark.parametrize(("succeeded", "kind"), [(True, "order.completed"), (False, "order.canceled")])
async def test_a_notice_is_verified_and_names_the_payment_and_the_order(shop: Shop, succeeded: bool, kind: str) -> None:
    payment, pending = await shop.order()
    await shop.gateway.finish(pending, succeeded=succeeded)
    headers, body = await shop.notices.next()
    notice = parse(headers, body, SECOND_KEY)
    assert (notice.kind, notice.payment_id, notice.provider_ref) == (kind, payment.id, pending.provider_ref)
    assert (notice.provider_key, notice.is_refusal) == (payment.provider_key, not succeeded)
    with pytest.raises(InvalidNotice):
        parse(headers, body, "another key")
    with pytest.raises(InvalidNotice):
        parse(headers, body.replace(b"PLN", b"EUR"), SECOND_KEY)


def parse(headers: dict[str, str], body: bytes, *keys: str) -> Notice:
    [notice] = notice_parser(lambda: keys)(headers, body, now=datetime.now(UTC))
    return notice


async def test_an_order_whose_answer_was_lost_is_found_by_its_notice(shop: Shop) -> None:
    payment = await shop.bench.payment()
    shop.bench.strike(LOST_ANSWER)
    assert isinstance(await shop.bench.charge(payment), Unknown)
    assert isinstance(await shop.bench.look_up(payment, may_execute=True), Unknown)
    [entry] = await shop.bench.books(payment)
    await shop.gateway.finish(Pending(entry.ref), succeeded=True)
    notice = parse(*await shop.notices.next(), SECOND_KEY)
    assert notice.payment_id == payment.id
    known = replace(payment, attempt_ref=notice.provider_ref)
    assert await shop.bench.look_up(known) == Approved(entry.ref)
    await shop.bench.booked_once(payment)


async def test_an_order_that_the_refusal_of_a_repeat_names_is_found_without_a_notice(shop: Shop) -> None:
    shop.gateway.unique.names_existing = True
    payment = await shop.bench.payment()
    shop.bench.strike(LOST_ANSWER)
    assert isinstance(await shop.bench.charge(payment), Unknown)
    found = await shop.bench.look_up(payment, may_execute=True)
    assert isinstance(found, Pending)
    assert await shop.bench.settled(payment, found) == Approved(found.provider_ref)
    await shop.bench.booked_once(payment)


async def test_a_refused_token_is_replaced_once(shop: Shop) -> None:
    payment = await shop.bench.payment()
    shop.bench.strike(UNAUTHORIZED)
    assert isinstance(await shop.bench.charge(payment), Pending)
    tokens = [request for request in shop.bench.proxy.requests if "oauth" in request.target]
    assert len(tokens) == 2
    await shop.bench.booked_once(payment)


async def test_a_second_refusal_is_our_configuration(shop: Shop) -> None:
    shop.bench.strike(UNAUTHORIZED)
    shop.bench.strike(UNAUTHORIZED)
    payment = await shop.bench.payment()
    assert await shop.bench.charge(payment) == Unavailable("HTTP 401 UNAUTHORIZED", fault="config")
    assert await shop.bench.books(payment) == []


async def test_an_order_that_payu_does_not_know_stays_unknown(shop: Shop) -> None:
    payment = replace(await shop.bench.payment(), attempt_ref="a" * 32)
    unknown = Unknown("HTTP 404 ERROR_ORDER_NOT_EXISTS", is_neutral=True)
    assert await shop.bench.look_up(payment, may_execute=True) == unknown


async def test_many_payments_at_the_same_time_share_a_token_and_get_an_order_each(shop: Shop) -> None:
    payments = [await shop.bench.payment() for _ in range(40)]
    results = await asyncio.gather(*(shop.bench.charge(payment) for payment in payments))
    assert len({result.provider_ref for result in results if isinstance(result, Pending)}) == 40
    assert len(shop.bench.proxy.requests) == 41
