"""Measure an adapter's own CPU time per charge: `python -m bench.adapters`.

Each client charges one payment again and again, with 64 calls in flight, against a server in another process that sends a
canned answer of the gateway's usual size. The first client is that of okane's own contract, which the mock provider speaks;
the others must not cost more than twice as much. Rounds alternate, because the machine's speed drifts.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection as Pipe
from typing import cast

import uvloop

from bench.provider_client import ANSWER, IN_FLIGHT, TIMEOUT, cpu_us_per_call, processing_payment
from okane.payment import Payment
from okane.providers.base import Approved, Pending, Provider
from okane.providers.okane_http.provider import OkaneHttpProvider
from okane.providers.payu.provider import PayuProvider
from okane.providers.stripe.provider import StripeProvider

LIMIT = 2.0  # times the first client's CPU


@dataclass(frozen=True, slots=True)
class Adapter:
    """A client with its gateway's canned answer, and the gateway's token of the card.

    `result` is the type of the result that the answer means.
    """

    name: str
    open: Callable[[str], Provider]
    answer: Callable[[Payment], bytes]
    result: type = Approved
    payment_method: str | None = None


def _intent(payment: Payment) -> bytes:
    """The PaymentIntent of a card payment with all members that Stripe sends."""
    null = (
        "application application_fee_amount canceled_at cancellation_reason customer customer_account description "
        "excluded_payment_method_types last_payment_error next_action on_behalf_of payment_details presentment_details "
        "processing receipt_email review setup_future_usage shipping source statement_descriptor "
        "statement_descriptor_suffix transfer_data transfer_group"
    )
    document = dict.fromkeys(null.split()) | {
        "id": "pi_3SZ0aB2eZvKYlo2C0x1y2z3A",
        "object": "payment_intent",
        "amount": payment.amount_minor,
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": payment.amount_minor,
        "automatic_payment_methods": {"allow_redirects": "never", "enabled": True},
        "capture_method": "automatic",
        "client_secret": "pi_3SZ0aB2eZvKYlo2C0x1y2z3A_secret_0123456789abcdefghijklmno",
        "confirmation_method": "automatic",
        "created": 1767225600,
        "currency": payment.currency.lower(),
        "hooks": {"inputs": {}},
        "latest_charge": "ch_3SZ0aB2eZvKYlo2C0a1b2c3D",
        "livemode": False,
        "metadata": {"payment_id": str(payment.id), "attempt_key": payment.provider_key},
        "payment_method": "pm_1SZ0aB2eZvKYlo2CsTuVwXyZ",
        "payment_method_configuration_details": {"id": "pmc_1SZ0aB2eZvKYlo2CqRsTuVwX", "parent": None},
        "payment_method_options": {
            "card": {
                "installments": None,
                "mandate_options": None,
                "network": None,
                "request_three_d_secure": "automatic",
            },
            "link": {"persistent_token": None},
        },
        "payment_method_types": ["card", "link"],
        "status": "succeeded",
    }
    body = json.dumps(document, indent=2).encode()  # as Stripe sends it
    head = (
        "HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: keep-alive\r\nAccess-Control-Allow-Credentials: true\r\n"
        "Access-Control-Allow-Methods: GET, HEAD, PUT, PATCH, POST, DELETE\r\nAccess-Control-Allow-Origin: *\r\n"
        "Access-Control-Max-Age: 300\r\nCache-Control: no-cache, no-store\r\n"
        f"Idempotency-Key: {payment.provider_key}\r\nOriginal-Request: req_0123456789abcd\r\n"
        "Request-Id: req_0123456789abcd\r\n"
        "Stripe-Should-Retry: false\r\nStripe-Version: 2026-08-26.dahlia\r\nVary: Origin\r\n"
        "X-Stripe-Routing-Context-Priority-Tier: api-testmode\r\n"
        "Strict-Transport-Security: max-age=63072000; includeSubDomains; preload\r\n\r\n"
    )
    return head.encode() + body


def _order(payment: Payment) -> bytes:
    """An order with its page, and an access token: the server has one answer for both requests."""
    document = {
        "access_token": "d9a4536e-62ba-4f60-8017-6053211d3f47",
        "expires_in": 43199,
        "status": {"statusCode": "SUCCESS"},
        "redirectUri": "https://secure.payu.com/pay/?orderId=WZHF5FFDRJ140731GUEST000P01&token=" + "x" * 400,
        "iframeAllowed": True,
        "orderId": "WZHF5FFDRJ140731GUEST000P01",
        "extOrderId": payment.provider_key,
    }
    body = json.dumps(document).encode()
    head = (
        "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: application/json;charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: keep-alive\r\nCorrelation-Id: 0AE0B2C1-0001_AC11000D-0050_1\r\n"
        "Cache-Control: no-cache, no-store, max-age=0, must-revalidate\r\nPragma: no-cache\r\nExpires: 0\r\n"
        "X-Content-Type-Options: nosniff\r\nStrict-Transport-Security: max-age=31536000\r\n\r\n"
    )
    return head.encode() + body


def _payu(base_url: str) -> Provider:
    return PayuProvider(
        base_url=base_url,
        pos_id="300746",
        client_id="300746",
        client_secret=lambda: "bench",
        notify_url="https://pay.example.com/v1/providers/payu/webhook",
        timeout=TIMEOUT,
    )


ADAPTERS = (
    Adapter("http", lambda base_url: OkaneHttpProvider(base_url, timeout=TIMEOUT), lambda _: ANSWER),
    Adapter(
        "stripe",
        lambda base_url: StripeProvider(base_url, api_key=lambda: "sk_test_bench", timeout=TIMEOUT),
        _intent,
        payment_method="pm_card_visa",
    ),
    Adapter("payu", _payu, _order, Pending),
)


def main() -> None:
    """Print the CPU microseconds per charge of each adapter, and its ratio to the first; exit with 1 beyond the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--calls", type=int, default=192, help="per adapter and round")
    arguments = parser.parse_args()
    rounds = measure(rounds=arguments.rounds, calls=arguments.calls)
    print(f"{IN_FLIGHT} in flight, CPU us per charge (least of {arguments.rounds} rounds):")
    # The least of many short rounds: other processes on the machine add to a round, and take nothing away.
    least = {adapter.name: min(one[adapter.name] for one in rounds) for adapter in ADAPTERS}
    first = ADAPTERS[0].name
    for name, cpu_us in least.items():
        print(f"{name:8} {cpu_us:6.1f}  {cpu_us / least[first]:.2f} x {first}")
    if max(least.values()) > LIMIT * least[first]:
        raise SystemExit(1)


def measure(*, rounds: int, calls: int) -> list[Mapping[str, float]]:
    """Return the CPU microseconds per charge by adapter, for each round."""
    payment = processing_payment()
    here, there = multiprocessing.Pipe()
    answers = [adapter.answer(payment) for adapter in ADAPTERS]
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(there, answers), daemon=True)
    server.start()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_rounds(cast("list[int]", here.recv()), payment, rounds, calls))
    finally:
        server.terminate()
        server.join()


async def _rounds(ports: list[int], payment: Payment, rounds: int, calls: int) -> list[Mapping[str, float]]:
    measured: list[Mapping[str, float]] = []
    async with contextlib.AsyncExitStack() as closing:
        opened = []
        for adapter, port in zip(ADAPTERS, ports, strict=True):
            provider = adapter.open(f"http://127.0.0.1:{port}")
            closing.push_async_callback(provider.aclose)
            opened.append((adapter, provider))
            await _charge(adapter, provider, payment, calls)  # connections open, caches warm
        for number in range(rounds):
            turn = opened if number % 2 else opened[::-1]
            one = {adapter.name: await _charge(adapter, provider, payment, calls) for adapter, provider in turn}
            measured.append({adapter.name: one[adapter.name] for adapter in ADAPTERS})
    return measured


async def _charge(adapter: Adapter, provider: Provider, payment: Payment, calls: int) -> float:
    """Return the CPU microseconds per charge."""
    payment = replace(payment, payment_method=adapter.payment_method)
    return await cpu_us_per_call(provider.charge, payment, calls, result=adapter.result)


def _serve(pipe: Pipe, answers: list[bytes]) -> None:
    asyncio.run(_serve_for_ever(pipe, answers))


async def _serve_for_ever(pipe: Pipe, answers: list[bytes]) -> None:
    loop = asyncio.get_running_loop()
    servers = [
        await loop.create_server(lambda answer=answer: _Server(answer), "127.0.0.1", 0, backlog=512)  # type: ignore[misc] # a default value has no type
        for answer in answers
    ]
    pipe.send([server.sockets[0].getsockname()[1] for server in servers])
    await asyncio.gather(*(server.serve_forever() for server in servers))


class _Server(asyncio.Protocol):
    """Sends the same answer to every request with a Content-Length."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, _, body = self._received.partition(b"\r\n\r\n")
        if body and len(body) == int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]):
            self._received = b""
            self._transport.write(self._answer)


if __name__ == "__main__":
    main()
