"""The client refuses arguments that JSON would change before it sends anything; ids cannot lead to another path."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest

from okane.client import Client, NewPayment
from okane.payment import Status
from tests.okane.faulty_proxy import Way

ID = UUID("01890000-0000-7000-8000-000000000000")
NAIVE = datetime(2027, 1, 1)
AWARE = datetime(2027, 1, 1, tzinfo=UTC)
RIGHT: dict[str, Any] = {"amount": 440, "idempotency_key": "k"}

NO_PAYMENTS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"amount": 4.4}, TypeError, "amount must be int, not float"),
    ({"amount": 440.0}, TypeError, "amount must be int, not float"),
    ({"amount": True}, TypeError, "amount must be int, not bool"),
    ({"amount": "440"}, TypeError, "amount must be int, not str"),
    ({"amount": None}, TypeError, "amount must be int, not NoneType"),
    ({"amount": 2**53}, ValueError, "amount must not exceed"),
    ({"idempotency_key": 7}, TypeError, "idempotency_key must be str"),
    ({"idempotency_key": b"k"}, TypeError, "idempotency_key must be str"),
    ({"idempotency_key": ""}, ValueError, "visible ASCII"),
    ({"idempotency_key": "a b"}, ValueError, "visible ASCII"),
    ({"idempotency_key": "k\n"}, ValueError, "visible ASCII"),
    ({"idempotency_key": "é"}, ValueError, "visible ASCII"),
    ({"idempotency_key": "k" * 256}, ValueError, "visible ASCII"),
    ({"currency": 978}, TypeError, "currency must be str"),
    ({"currency": "eur"}, ValueError, "in capitals"),
    ({"metadata": None}, TypeError, "metadata must be a mapping"),
    ({"metadata": [("a", "b")]}, TypeError, "metadata must be a mapping"),
    ({"metadata": {"order": 4711}}, TypeError, r"metadata\['order'\] must be str, not int"),
    ({"metadata": {"paid": True}}, TypeError, "must be str, not bool"),
    ({"metadata": {"note": None}}, TypeError, "must be str, not NoneType"),
    ({"metadata": {1: "a"}}, TypeError, "a name in metadata must be str"),
    ({"metadata": {"a": "\x00"}}, ValueError, "NUL"),
    ({"metadata": {"a": "\ud800"}}, ValueError, "lone surrogates"),
    ({"execute_at": NAIVE}, ValueError, "execute_at must have a time zone"),
    ({"expires_at": NAIVE}, ValueError, "expires_at must have a time zone"),
    ({"execute_at": date(2027, 1, 1)}, TypeError, "execute_at must be datetime, not date"),
    ({"expires_at": "2027-01-01T00:00:00Z"}, TypeError, "expires_at must be datetime, not str"),
    ({"expires_at": 1.8e9}, TypeError, "expires_at must be datetime, not float"),
    ({"expires_at": datetime.max.replace(tzinfo=timezone(-timedelta(hours=1)))}, ValueError, "too far away"),
]


@pytest.mark.parametrize(("members", "kind", "said"), NO_PAYMENTS, ids=[str(members) for members, _, _ in NO_PAYMENTS])
def test_a_payment_that_json_would_change_cannot_be_written(
    members: dict[str, Any], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        NewPayment(**RIGHT | members)


def test_a_new_payment_is_what_it_was_when_it_was_checked() -> None:
    metadata = {"order": "4711"}
    new = NewPayment(**RIGHT, metadata=metadata, execute_at=AWARE.astimezone(timezone(timedelta(seconds=1172))))
    metadata["order"] = 4711  # type: ignore[assignment]  # wrong on purpose
    assert new.document()["metadata"] == {"order": "4711"}
    assert new.document()["execute_at"] == "2027-01-01T00:00:00.000000Z"  # RFC 3339 has no seconds in an offset
    frozen = NewPayment(**RIGHT, metadata=MappingProxyType({"a": "b"}))
    assert frozen.document()["metadata"] == {"a": "b"}


async def every(pages: AsyncIterator[Any]) -> list[Any]:
    return [one async for one in pages]


IDS: list[Callable[[Client, Any], Awaitable[Any]]] = [
    lambda client, one: client.payment(one),
    lambda client, one: client.at_rest(one),
    lambda client, one: client.cancel(one),
    lambda client, one: client.retry(one),
    lambda client, one: every(client.events(one)),
    lambda client, one: every(client.attempts(one)),
    lambda client, one: client.replay([one]),
    lambda client, one: client.resolve(one, as_="success", reason="found"),
]
NO_IDS = [
    f"{ID}/retry?",
    f"{ID}?",
    f"{ID}#",
    f"{ID}/",
    f"../{ID}",
    f"{ID}%2Fretry",
    f" {ID}",
    f"{ID}\n",
    "",
    "batch",
    "*",
    f"PAY_{ID.hex}",
]


@pytest.mark.parametrize(
    "ask", IDS, ids=["payment", "at_rest", "cancel", "retry", "events", "attempts", "replay", "resolve"]
)
async def test_an_id_leads_to_its_payment_and_nowhere_else(ask: Callable[[Client, Any], Awaitable[Any]]) -> None:
    async with Client("http://127.0.0.1:1", patience_s=0) as client:  # where nothing answers
        for text in NO_IDS:
            with pytest.raises(ValueError, match="is not a payment's id"):
                await ask(client, text)
        for other in (None, 7, ID.bytes, b"x", [ID]):
            with pytest.raises(TypeError, match="payment_id must be str"):
                await ask(client, other)


async def test_an_id_may_be_written_in_both_spellings(way: tuple[Way, Client]) -> None:
    lossy, client = way
    payment = (await client.pay(NewPayment(**RIGHT))).payment
    for spelling in (payment.id, str(payment.id), str(payment.id).upper(), f"pay_{payment.id.hex}"):
        assert await client.payment(spelling) == payment
    assert {path for _, path, _ in lossy.asked[1:]} == {f"/v1/payments/{payment.id}"}


WRONG: dict[str, tuple[Callable[[Client], Awaitable[Any]], type[Exception]]] = {
    "pay a dict": (lambda client: client.pay(RIGHT), TypeError),  # type: ignore[arg-type]  # wrong on purpose
    "pay many dicts": (lambda client: client.pay_many([RIGHT]), TypeError),  # type: ignore[list-item]  # wrong on purpose
    "pay many of one": (lambda client: client.pay_many(NewPayment(**RIGHT)), TypeError),  # type: ignore[arg-type]  # wrong on purpose
    "a wait in fractions": (lambda client: client.payment(ID, wait_s=2.5), TypeError),  # type: ignore[arg-type]  # wrong on purpose
    "a wait in words": (lambda client: client.payment(ID, wait_s="5"), TypeError),  # type: ignore[arg-type]  # wrong on purpose
    "a wait of True": (lambda client: client.pay(NewPayment(**RIGHT), wait_s=True), TypeError),
    "a negative wait": (lambda client: client.payment(ID, wait_s=-1), ValueError),
    "ids in one text": (lambda client: client.replay(str(ID)), TypeError),
    "a limit in fractions": (lambda client: client.replay(limit=1.0), TypeError),  # type: ignore[arg-type]  # wrong on purpose
    "a limit of True": (lambda client: client.replay(limit=True), TypeError),
    "a dry run in words": (lambda client: client.replay(dry_run="no"), TypeError),  # type: ignore[arg-type]  # wrong on purpose
    "a decision of None": (lambda client: client.resolve(ID, as_=None, reason="found"), TypeError),  # type: ignore[arg-type]  # wrong on purpose
    "a decision that is none": (lambda client: client.resolve(ID, as_=Status.CANCELED, reason="found"), ValueError),
    "a version that is no number": (
        lambda client: client.resolve(ID, as_="success", reason="found", version="3"),  # type: ignore[arg-type]  # wrong on purpose
        TypeError,
    ),
    "a reason that is no text": (lambda client: client.resolve(ID, as_="success", reason=1.5), TypeError),  # type: ignore[arg-type]  # wrong on purpose
    "a reason of half a pair": (lambda client: client.resolve(ID, as_="success", reason="\ud800"), ValueError),
    "a reference that is no text": (
        lambda client: client.resolve(ID, as_="success", reason="found", provider_ref=7),  # type: ignore[arg-type]  # wrong on purpose
        TypeError,
    ),
    "a dry run of None": (lambda client: client.replay(dry_run=None), TypeError),  # type: ignore[arg-type]  # wrong on purpose
}
FILTERS: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"status": "success"}, TypeError),
    ({"status": Status.SUCCESS}, TypeError),
    ({"status": ["paid"]}, ValueError),
    ({"status": [7]}, TypeError),
    ({"currency": "usd"}, ValueError),
    ({"currency": ["USD"]}, TypeError),
    ({"provider": 7}, TypeError),
    ({"provider_ref": "\x00"}, ValueError),
    *(({f"{name}_{side}": NAIVE}, ValueError) for name in ("created", "updated") for side in ("after", "before")),
    ({"created_after": date(2027, 1, 1)}, TypeError),
    ({"created_after": "2027-01-01T00:00:00Z"}, TypeError),
    ({"amount_min": 4.4}, TypeError),
    ({"amount_min": True}, TypeError),
    ({"amount_max": "440"}, TypeError),
    ({"amount_max": 2**53}, ValueError),
    ({"idempotency_key": "a b"}, ValueError),
    ({"metadata": {"a": 1}}, TypeError),
    ({"metadata": "a"}, TypeError),
    ({"order": "upwards"}, ValueError),
    ({"order": True}, TypeError),
    ({"colour": "red"}, TypeError),
    ({"lane": "low"}, TypeError),  # of dead letters only
]


@pytest.mark.parametrize(("ask", "kind"), WRONG.values(), ids=WRONG)
async def test_an_argument_of_another_kind_is_refused_before_a_round_trip(
    ask: Callable[[Client], Awaitable[Any]], kind: type[Exception]
) -> None:
    async with Client("http://127.0.0.1:1", patience_s=0) as client:
        with pytest.raises(kind):
            await ask(client)


@pytest.mark.parametrize(("which", "kind"), FILTERS, ids=[str(which) for which, _ in FILTERS])
def test_a_filter_of_another_kind_is_refused_when_it_is_given(which: dict[str, Any], kind: type[Exception]) -> None:
    client = Client("http://127.0.0.1:1")
    with pytest.raises(kind):
        client.payments(**which)


@pytest.mark.parametrize(
    "which", [{"dead_after": NAIVE}, {"dead_before": NAIVE}, {"lane": 7}, {"provider": "x"}, {"status": "success"}]
)
def test_a_filter_of_dead_letters_is_checked_as_well(which: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        Client("http://127.0.0.1:1").dead_letters(**which)


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"url": "127.0.0.1:8080"}, ValueError),
        ({"url": "ftp://127.0.0.1"}, ValueError),
        ({"url": "http://"}, ValueError),
        ({"url": "http://127.0.0.1/?a=b"}, ValueError),
        ({"url": b"http://127.0.0.1"}, TypeError),
        ({"key": "sk_test_a\nHost: b"}, ValueError),
        ({"key": ""}, ValueError),
        ({"key": 7}, TypeError),
        ({"patience_s": "60"}, TypeError),
        ({"patience_s": -1}, ValueError),
        ({"timeout_s": float("nan")}, ValueError),
        ({"timeout_s": timedelta(seconds=1)}, TypeError),
    ],
)
def test_a_client_of_nothing_that_is_cannot_be_made(changed: dict[str, Any], kind: type[Exception]) -> None:
    arguments = {"url": "http://127.0.0.1:1"} | changed
    with pytest.raises(kind):
        Client(arguments.pop("url"), **arguments)
