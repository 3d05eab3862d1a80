"""The clients: they send requests for payments, repeat unanswered ones, and sometimes send one twice, at once or later."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import UUID

from okane.errors import IdempotencyKeyReused, OkaneError, StatusConflict, StoreUnavailable, TimeOutOfRange
from okane.intake.accept import IntakeReceipt, PaymentIntake
from okane.lanes import LaneLimits
from okane.payment import Payment
from okane.providers.base import InvalidNotice, Notice
from okane.providers.stripe.webhook import StripeNoticeParser
from okane.store import API, NewPayment
from tests.simulation.audit import Audit, ClientAnswer
from tests.simulation.loop import Process
from tests.simulation.network import PENDING, Exchange, Link, Network, NoAnswer, NotSent
from tests.simulation.processes import ApiProcess
from tests.simulation.stripe_gateway import StripeGateway

TIMEOUT_S = 4.0
TRIES = 8
NOTICE_SECRET = "whsec_simulated"
PARSE_NOTICE = StripeNoticeParser(lambda: [NOTICE_SECRET])
LANES = LaneLimits(critical_from_minor=10_000, low_below_minor=1_000)


@dataclass(slots=True)
class Endpoint:
    """One API process and its address, if it runs."""

    process: Process
    api: ApiProcess


class Clients:
    """All clients. `endpoints` returns the running APIs."""

    def __init__(
        self,
        network: Network,
        dice: Random,
        audit: Audit,
        endpoints: Callable[[], Sequence[Endpoint]],
        *,
        providers: Sequence[str],
    ) -> None:
        self._network = network
        self._dice = dice
        self._audit = audit
        self._endpoints = endpoints
        self._providers = providers
        self._link = Link("http")
        self._deliveries: set[asyncio.Task[None]] = set()

    async def run(self, payments: int, within_s: float) -> None:
        """Send the requests for all payments; return when every client has its answer or has given up."""
        async with asyncio.TaskGroup() as asking:
            for number in range(payments):
                asking.create_task(self._client(number, self._dice.random() * within_s))

    async def _client(self, number: int, after_s: float) -> None:
        await asyncio.sleep(after_s)
        new = replace(
            _new(f"account-{number % 2}", f"key-{number}", self._dice.randint(1, 20_000)),
            execute_at=self._soon(0.1, 5.0),
            expires_at=self._soon(0.1, 15.0),
            payment_method="pm_simulated",
        )
        if len(self._providers) > 1:
            new = replace(new, requested_provider=self._wish(), candidates=self._route())
            new = replace(new, soft_fallback=True if new.candidates and self._dice.random() < 0.8 else None)
        if StripeGateway.name in self._providers and self._dice.random() < 0.7:  # its customer may have to act
            new = replace(new, return_url="https://shop.simulated/")
        new = self._shaped(new)
        if self._dice.random() < 0.2:
            async with asyncio.TaskGroup() as twins:
                for _ in range(2):
                    twins.create_task(self._insist(new))
        payment_id = await self._insist(new)
        if payment_id is None:
            return
        self._accepted(payment_id, new)
        if self._dice.random() < 0.3:
            await asyncio.sleep(self._dice.random() * 3)
            await self._insist(new)
        if self._dice.random() < 0.1:
            await self._ask_for_something_else(new)
        if self._dice.random() < 0.1:
            await asyncio.sleep(self._dice.random() * 5)
            await self._retry(payment_id, new.account_id)
        if self._dice.random() < 0.1:
            await asyncio.sleep(self._dice.random() * 2)
            await self._cancel(payment_id, new.account_id)

    def _shaped(self, new: NewPayment) -> NewPayment:
        """Return the payment as it is asked for in this world."""
        return new

    def _accepted(self, payment_id: UUID, new: NewPayment) -> None:
        """Note that a client has the answer about its payment."""

    def notify(self, body: bytes) -> None:
        """Send a notice of the gateway to one API, signed; now and then with the signature of a forger."""
        forged = self._dice.random() < 0.1
        asking = self._network.loop.start(self._network.loop.world, self._deliver(body, forged=forged))
        self._deliveries.add(asking)
        asking.add_done_callback(self._deliveries.discard)

    async def _deliver(self, body: bytes, *, forged: bool) -> None:
        signed_at = str(int(self._network.loop.wall_s()))
        secret = b"a guess" if forged else NOTICE_SECRET.encode()
        signature = hmac.new(secret, f"{signed_at}.".encode() + body, hashlib.sha256).hexdigest()
        headers = {"stripe-signature": f"t={signed_at},v1={signature}"}
        now = datetime.fromtimestamp(self._network.loop.wall_s(), UTC)
        try:
            notices = PARSE_NOTICE(headers, body, now=now)
        except InvalidNotice:
            self._network.faults["forged notice"] += 1
            return
        if forged:
            self._audit.report("a forged notice was taken")
        with contextlib.suppress(NotSent, NoAnswer, StoreUnavailable):  # it is lost: polls must do
            results = await self._ask_api(lambda api: _take_notices(api, notices))
            self._network.faults.update(f"notice {result}" for result in results)

    def _route(self) -> Sequence[str] | None:
        """Return the candidates of half of the payments, as a route chose them."""
        if self._dice.random() < 0.5:
            return None
        return self._dice.sample(self._providers, self._dice.randint(1, len(self._providers)))

    def _wish(self) -> str | None:
        """Return the provider that a request asks for; most ask for none."""
        return self._dice.choice(self._providers) if self._dice.random() < 0.2 else None

    def _soon(self, chance: float, within_s: float) -> datetime | None:
        """Return a moment, or None."""
        if self._dice.random() >= chance:
            return None
        return datetime.fromtimestamp(self._network.loop.wall_s() + self._dice.random() * within_s, UTC)

    async def _insist(self, new: NewPayment) -> UUID | None:
        """Repeat a request until it is answered."""
        for turn in range(TRIES):
            try:
                receipt: IntakeReceipt = await self._ask(lambda intake: _accept(intake, new))
            except (NotSent, NoAnswer, StoreUnavailable):
                await asyncio.sleep(self._dice.random() * 0.3 * 2**turn)
                continue
            except TimeOutOfRange:  # over before it was taken
                return None
            payment = receipt.payment
            self._audit.client_answers.append(
                ClientAnswer(new.account_id, new.idempotency_key, payment.id, new.amount_minor, new.currency)
            )
            self._audit.repairs["accepted without a wake-up"] += (
                receipt.created and not receipt.enqueued and new.execute_at is None
            )
            return payment.id
        return None

    async def _ask_for_something_else(self, new: NewPayment) -> None:
        other = _new(new.account_id, new.idempotency_key, new.amount_minor + 1)
        try:
            await self._ask(lambda intake: _accept(intake, other))
        except (IdempotencyKeyReused, NotSent, NoAnswer, StoreUnavailable):
            return
        self._audit.report(f"I7: {new.idempotency_key} was accepted with another meaning")

    async def _retry(self, payment_id: UUID, account_id: str) -> None:
        try:
            await self._ask(lambda intake: intake.retry(payment_id, account_id=account_id, actor=API))
        except (StatusConflict, NotSent, NoAnswer, StoreUnavailable):
            return
        self._audit.repairs["retried by hand"] += 1

    async def _cancel(self, payment_id: UUID, account_id: str) -> None:
        """Withdraw a payment twice: the second request gets the same answer as the first."""
        for _ in range(2):
            try:
                payment: Payment = await self._ask(
                    lambda intake: intake.cancel(payment_id, account_id=account_id, actor=API)
                )
            except (StatusConflict, NotSent, NoAnswer, StoreUnavailable):
                return
            self._audit.canceled(payment)

    async def _ask(self, request: Callable[[PaymentIntake], Any]) -> Any:
        """Send one request to one API; return its answer."""

        async def of_intake(api: ApiProcess) -> Any:
            assert api.intake is not None
            return await request(api.intake)

        return await self._ask_api(of_intake)

    async def _ask_api(self, request: Callable[[ApiProcess], Any]) -> Any:
        """Send one request to one API; return its answer."""
        endpoints = self._endpoints()
        if not endpoints:
            raise NotSent("connection refused")
        endpoint = endpoints[int(self._dice.random() * len(endpoints))]

        def arrive(exchange: Exchange) -> object:
            if endpoint.api.intake is None or not endpoint.process.alive:
                raise NotSent("connection refused")
            task = self._network.loop.start(endpoint.process, _handle(request, endpoint.api, exchange))
            endpoint.api.requests.add(task)
            task.add_done_callback(endpoint.api.requests.discard, context=self._network.loop.context(endpoint.process))
            return PENDING

        return await self._network.call(self._link, "http", arrive, timeout_s=TIMEOUT_S, block_s=TIMEOUT_S)


async def _take_notices(api: ApiProcess, notices: Sequence[Notice]) -> Sequence[str]:
    assert api.notices is not None
    return await api.notices.take(StripeGateway.name, notices)


async def _handle(request: Callable[[ApiProcess], Any], api: ApiProcess, exchange: Exchange) -> None:
    """Run one request in the process of the API."""
    try:
        answer = await request(api)
    except OkaneError as error:
        exchange.answer(error, failed=True)
    else:
        exchange.answer(answer)


async def _accept(intake: PaymentIntake, new: NewPayment) -> IntakeReceipt:
    [receipt] = await intake.wake(await intake.write([new]))
    if isinstance(receipt, BaseException):
        raise receipt
    return receipt


def _new(account_id: str, key: str, amount_minor: int) -> NewPayment:
    meaning = f"{account_id} {key} {amount_minor}"
    return NewPayment(
        account_id=account_id,
        idempotency_key=key,
        fingerprint=hashlib.sha256(meaning.encode()).digest(),
        amount_minor=amount_minor,
        currency="USD",
        lane=LANES.lane_for(amount_minor),
        metadata={},
    )
