"""Requests for the fast path, as bytes, and a store that answers at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import UUID

from okane.api.operation_handlers import OperationHandlers, OperationServices
from okane.api.payment_creation import MAX_BODY_BYTES, RENDERERS
from okane.errors import IdempotencyKeyReused, PaymentNotFound
from okane.intake.accept import PaymentIntake
from okane.lanes import operations_stream
from okane.payment import Payment, Status
from okane.store import AcceptedRow, NewPayment, Page, PaymentFilter, PaymentStore
from okane.store.operations import OperationLists, OperationStore
from streams.testing import MemoryQueue
from tests.okane.api_requests import BAD

HEALTH = b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n"


NOW = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)


@dataclass(slots=True)
class Shelf:
    """A store in memory, whose ids are numbers. A test may hold its answers back, or make it fail."""

    by_key: dict[str, tuple[Payment, bytes]] = field(default_factory=dict)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    late: asyncio.Event = field(default_factory=asyncio.Event)  # for the key of that name alone
    asked: int = 0
    error: Exception | None = None

    async def _accept(self, new: NewPayment) -> AcceptedRow:
        self.asked += 1
        await asyncio.sleep(0)
        await (self.late if new.idempotency_key == "late" else self.open).wait()
        if self.error is not None:
            raise self.error
        created = new.idempotency_key not in self.by_key
        payment, fingerprint = self.by_key.setdefault(
            new.idempotency_key, (_payment(new, number=len(self.by_key)), new.fingerprint)
        )
        if fingerprint != new.fingerprint:
            raise IdempotencyKeyReused(payment.id)
        return AcceptedRow(payment, created=created)

    async def accept_many(self, news: Sequence[NewPayment], *, wakes: int) -> Sequence[AcceptedRow | BaseException]:
        return await asyncio.gather(*map(self._accept, news), return_exceptions=True)

    async def find(self, new: NewPayment) -> Payment | None:
        payment, fingerprint = self.by_key.get(new.idempotency_key, (None, new.fingerprint))
        if payment is not None and fingerprint != new.fingerprint:
            raise IdempotencyKeyReused(payment.id)
        return payment

    async def page(self, _wanted: PaymentFilter, *, account_id: str, limit: int, after: UUID | None) -> Page:
        return Page([], None)

    async def get(self, payment_id: UUID, *, account_id: str) -> Payment:
        raise PaymentNotFound(str(payment_id))

    async def retry(self, payment_id: UUID, *, account_id: str, actor: str) -> Payment:
        raise PaymentNotFound(str(payment_id))

    async def check_writable(self) -> None:
        pass


def _payment(new: NewPayment, *, number: int) -> Payment:
    return Payment(
        id=UUID(int=number),
        account_id=new.account_id,
        idempotency_key=new.idempotency_key,
        amount_minor=new.amount_minor,
        currency=new.currency,
        lane=new.lane,
        status=Status.PENDING,
        attempts=0,
        retries=0,
        version=0,
        provider_key="",
        created_at=NOW,
        updated_at=NOW,
        metadata=new.metadata,
    )


def post(key: str, *fields: str, path: str = "/payments", amount: int = 440) -> bytes:
    return sent(f'{{"amount": {amount}, "idempotency_key": "{key}"}}', *fields, path=path)


def sent(body: str | bytes, *fields: str, path: str = "/payments") -> bytes:
    body = body.encode() if isinstance(body, str) else body
    head = [f"POST {path} HTTP/1.1", "Host: x", *fields, f"Content-Length: {len(body)}"]
    if not any(one.lower().startswith("content-type") for one in fields):
        head.append("Content-Type: application/json")
    return "\r\n".join([*head, "", ""]).encode() + body


def corpus() -> Iterator[bytes]:
    """Yield requests for payments: valid ones, repeats, and every kind of invalid one."""
    for path in RENDERERS:
        yield post("a", path=path)
        yield post("a", path=path)
        yield post("a", path=path, amount=441)
        yield post(f"b{path}", path=path)
        yield from (sent(cast("str | bytes", body), path=path) for body, _, _ in BAD)
        yield from (sent('{"amount": 1, "idempotency_key": "p", ' + text + "}", path=path) for text in OF_PROVIDERS)
    for number, fields in enumerate(FIELDS):
        yield sent(f'{{"amount": {number + 1}}}', *fields, f"Idempotency-Key: c-{number}")
        yield sent(f'{{"amount": {number + 1}, "idempotency_key": "d-{number}"}}', *fields)
    yield sent('{"amount": 1}', 'Idempotency-Key: "e"')
    yield sent('{"amount": 1}', 'Idempotency-Key: "e\\\\f"')
    yield sent('{"amount": 1}', "Idempotency-Key:")
    yield sent('{"amount": 1}', "Idempotency-Key: a", "Idempotency-Key: b")
    yield sent('{"amount": 1, "idempotency_key": "a"}', "Idempotency-Key: b")
    yield sent('\ufeff{"amount": 1, "idempotency_key": "g"}')
    yield sent(' {"amount": 1, "idempotency_key": "h", "metadata": {"name": "Zoë", "n": "\\u00eb\\\\"}} \n')
    yield sent('{"amount": 1, "idempotency_key": "i"}'.ljust(MAX_BODY_BYTES))
    yield sent('{"amount": 1, "idempotency_key": "j"}'.ljust(MAX_BODY_BYTES + 1))
    yield post("k", path="/payments?a=b")
    yield post("l", path="http://x/payments")
    yield post("m", path="/payments/")
    yield post("n", path="/p%61y")
    yield post("o").replace(b"HTTP/1.1", b"HTTP/1.0")
    yield post("o", "Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0")
    yield post("p").replace(b"POST", b"HEAD")
    yield post("q").replace(b"POST", b"PUT")
    yield post("r").replace(b"Host: x\r\n", b"")
    yield HEALTH


OF_PROVIDERS = [
    '"payment_method": "pm_1", "return_url": "https://shop.example/?a=b", "provider": "http"',
    '"payment_method": "pm_1", "return_url": "https://shop.example/?a=b", "provider": "http"',
    '"payment_method": "pm_2", "return_url": null',
    '"payment_method": "pm_\\"3"',
    '"payment_method": "4242424242424242"',
    '"provider": "payu"',
    '"provider": "http", "provider": "http"',
    '"return_url": "http://shop.example/"',
]


FIELDS: list[list[str]] = [
    [],
    ["X-Request-Id: mine-1"],
    ["X-Request-Id: not one"],
    ["X-Request-Id: a", "X-Request-Id: b"],
    ["Connection: keep-alive"],
    ["Connection: close"],
    ["Connection: upgrade", "Upgrade: websocket"],
    ["Proxy-Connection: close"],
    ["Sec-WebSocket-Key1: x"],
    ["Expect: 100-continue"],
    ["Expect: something"],
    ["Prefer: wait=0"],
    ["Content-Encoding: identity"],
    ["Content-Encoding: gzip"],
    ["Transfer-Encoding: identity"],
    ["Content-Type: text/plain"],
    ["Content-Type: application/json;charset=UTF-8"],
    ["Content-Type: application/json; charset=utf-16"],
    ["Content-Type: application/x-www-form-urlencoded"],
    ["Content-Type: nonsense"],
    ["Content-Type: application/json", "Content-Type: application/json"],
    ["Content-Length: 5"],
    ["Host: y"],
    ["User-Agent: curl/8", "Accept: */*", "Cookie: a=b", "Authorization: Basic x", "X-Forwarded-For: 1.2.3.4"],
    ["A: \xe9"],
    ["A: b\r\n c"],
    [*(f"A{number}: b" for number in range(70))],
    ["A: " + "a" * 5000],
    ["A: " + "a" * 9000],
]


def no_operations(payments: PaymentStore, intake: PaymentIntake) -> OperationHandlers:
    """Return handlers of captures and refunds that reach no database."""
    hour, url = timedelta(hours=1), "postgresql://nowhere"
    services = OperationServices(
        store=OperationStore(url, actor="api", lease=hour, grace=hour),
        lists=OperationLists(url),
        producer=MemoryQueue(operations_stream("test")),
        capabilities={},
    )
    return OperationHandlers(services, payments=payments, intake=intake)
