"""The product's own Stripe adapter over the simulated network: its requests and its readings of answers are the real ones."""

from __future__ import annotations

from contextvars import ContextVar

from okane.http.connection import MAX_ANSWER_BYTES, HttpResponse
from okane.payment import Payment
from okane.providers.base import ChargeResult, Declined, LookUpResult, Traits, Unavailable, Unknown
from okane.providers.stripe.provider import StripeProvider
from tests.no_operations import NoOperations
from tests.simulation.network import PENDING, Exchange, Link, Network, NoAnswer, NotSent
from tests.simulation.stripe_gateway import StripeGateway

_calling: ContextVar[Payment] = ContextVar("calling")


class SimulatedHttp:
    """The exchange with the gateway, in the place of `okane.providers.exchange.HttpClient`."""

    def __init__(self, gateway: StripeGateway, network: Network, link: Link, *, patience_s: float) -> None:
        self._gateway = gateway
        self._network = network
        self._link = link
        self._patience_s = patience_s

    async def call(
        self, request: bytes, *, repeatable: bool, due_s: float | None = None, max_answer_bytes: int = MAX_ANSWER_BYTES
    ) -> HttpResponse | Unavailable | Unknown:
        gateway, is_post = self._gateway, request.startswith(b"POST") and b"/cancel " not in request
        timeout_s = self._patience_s if due_s is None else due_s - self._network.loop.time()
        if timeout_s <= 0:
            return Unavailable("no time is left")
        if is_post:
            gateway.on_charge(_calling.get(), gateway.name)
        travel_s, answer_s = gateway.travel_s() if is_post else 0.0, gateway.answer_s()

        def arrive(exchange: Exchange) -> object:
            gateway.receive(request, exchange, travel_s=travel_s, answer_s=answer_s)
            return PENDING

        what = "charge" if is_post else "look_up"
        try:
            answer: HttpResponse = await self._network.call(
                self._link, what, arrive, timeout_s=timeout_s, block_s=travel_s + answer_s
            )
        except NotSent as error:
            return Unavailable(str(error))
        except NoAnswer as error:
            return Unknown(str(error))
        return answer

    async def aclose(self) -> None:
        """Nothing to close."""


class SimulatedStripe(NoOperations):
    """The adapter of one worker."""

    name = StripeGateway.name

    def __init__(
        self, gateway: StripeGateway, network: Network, link: Link, *, traits: Traits, dies_of: str | None = None
    ) -> None:
        self.traits = traits
        self._gateway = gateway
        self._network = network
        self._dies_of = dies_of
        self._stripe = StripeProvider("http://stripe.simulated", api_key=lambda: "sk_test_simulated")
        self._stripe._traits = traits
        http = SimulatedHttp(gateway, network, link, patience_s=traits.timeout.total_seconds())
        self._stripe._http = http  # type: ignore[assignment] # it has the same methods

    async def charge(self, payment: Payment) -> ChargeResult:
        await self._begin(payment)
        result = await self._stripe.charge(payment)
        self._gateway.on_answer(payment, result)
        return result

    async def look_up(self, payment: Payment, *, may_execute: bool) -> LookUpResult:
        await self._begin(payment)
        self._gateway.on_look_up(payment, self.name)
        result = await self._stripe.look_up(payment, may_execute=may_execute)
        self._gateway.on_answer(payment, result)
        return result

    async def release(self, payment: Payment, declined: Declined) -> LookUpResult:
        await self._begin(payment)
        result = await self._stripe.release(payment, declined)
        if isinstance(result, Declined):
            assert self._gateway.is_canceled(declined.provider_ref), f"{declined.provider_ref} is not closed: {result}"
        self._gateway.on_release(payment, result)
        return result

    async def aclose(self) -> None:
        """Nothing to close."""

    async def _begin(self, payment: Payment) -> None:
        if payment.idempotency_key == self._dies_of:
            await self._network.die("poison")
        _calling.set(payment)
