"""Captures, cancels and refunds at the gateway of torture: it keeps Stripe's rules, also over kill -9."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.test_utils import TestServer

from okane.operation import OperationKind
from okane.payment import Status
from okane.providers.base import Approved, Unknown
from tests.faults.test_gateway import CALM, SECRET
from tests.faults.test_gateway import served as gateway_served
from tests.okane.stripe_answers import CARD_PAYMENT
from tests.operations import OPERATION
from torture.gateway.books import Books
from torture.gateway.server import Behaviour, Gateway
from torture.history.journals import read_gateway_charges
from torture.history.operations import read_gateway_moves

QUIET = replace(CALM, decline_operation=0, slow_refund=0, failing_refund=0)


class Caller:
    """A client of the gateway."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def post(self, path: str, key: str, **form: object) -> tuple[int, dict[str, Any]]:
        """Return the status and the body of an answer; `__` in a name stands for brackets."""
        fields = {_bracketed(name): str(value) for name, value in form.items()}
        async with self._http.post(path, data=fields, headers={"Idempotency-Key": key}) as answer:
            return answer.status, await answer.json()

    async def get(self, path: str) -> dict[str, Any]:
        async with self._http.get(path) as answer:
            body: dict[str, Any] = await answer.json()
            return body

    async def authorize(self, *, method: str = "manual") -> str:
        """Make a PaymentIntent; return its reference."""
        _, made = await self.post(
            "/v1/payment_intents",
            f"k {method}",
            amount=1000,
            currency="usd",
            metadata__payment_id="p",
            capture_method=method,
        )
        return str(made["id"])

    async def refund(self, ref: str, key: str, amount: int) -> tuple[int, dict[str, Any]]:
        return await self.post("/v1/refunds", key, payment_intent=ref, amount=amount, metadata__operation_id=key)


@contextlib.asynccontextmanager
async def served(journal: Path, behaviour: Behaviour = QUIET) -> AsyncIterator[Caller]:
    """Serve a gateway inside the block, and yield a client of it."""
    gateway = Gateway(Books(journal), notify=["http://127.0.0.1:9/"], secret=SECRET, dice=random.Random(1))
    gateway.behaviour = behaviour
    async with TestServer(gateway.app()) as server, aiohttp.ClientSession(str(server.make_url("/"))) as http:
        yield Caller(http)


def moves(journal: Path) -> Mapping[str, tuple[OperationKind, int, bool]]:
    return {one.made_by: (one.kind, one.amount_minor, one.moved) for one in read_gateway_moves(journal)}


async def test_a_part_is_captured_once_and_the_rest_let_go(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    async with served(path) as caller:
        ref = await caller.authorize()
        assert [(one.captured, one.held) for one in read_gateway_charges(path)] == [(False, True)]
        status, _ = await caller.post(f"/v1/payment_intents/{ref}/capture", "too much", amount_to_capture=1001)
        assert status == 400
        status, done = await caller.post(f"/v1/payment_intents/{ref}/capture", "c", amount_to_capture=600)
        assert (status, done["status"], done["amount_received"]) == (200, "succeeded", 600)
        again = await caller.post(f"/v1/payment_intents/{ref}/capture", "c", amount_to_capture=600)
        assert again == (200, done)
        status, refused = await caller.post(f"/v1/payment_intents/{ref}/capture", "c:2", amount_to_capture=400)
        assert (status, refused["error"]["code"]) == (400, "payment_intent_unexpected_state")
        assert (await caller.post(f"/v1/payment_intents/{ref}/cancel", "v"))[0] == 400
    assert moves(path) == {"c": (OperationKind.CAPTURE, 600, True)}
    assert [(one.captured, one.held) for one in read_gateway_charges(path)] == [(True, True)]


async def test_a_void_lets_the_money_go_for_good(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    async with served(path) as caller:
        ref = await caller.authorize()
        status, done = await caller.post(f"/v1/payment_intents/{ref}/cancel", "v")
        assert (status, done["status"]) == (200, "canceled")
    async with served(path) as caller:  # in another life, too
        assert (await caller.post(f"/v1/payment_intents/{ref}/cancel", "v"))[1] == done
        assert (await caller.post(f"/v1/payment_intents/{ref}/capture", "c"))[0] == 400
    assert moves(path) == {"v": (OperationKind.VOID, 1000, True)}


async def test_refunds_never_exceed_what_was_received(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    async with served(path) as caller:
        ref = await caller.authorize(method="automatic")
        assert (await caller.refund(ref, "r1", 700))[1]["status"] == "succeeded"
        assert (await caller.refund(ref, "r2", 301))[0] == 400
    async with served(path) as caller:
        assert (await caller.refund(ref, "r1", 700))[1]["amount"] == 700
        assert (await caller.refund(ref, "r3", 300))[0] == 200
        assert (await caller.refund(ref, "r4", 1))[1]["error"]["code"] == "charge_already_refunded"
        listed = await caller.get(f"/v1/refunds?payment_intent={ref}")
        assert [one["metadata"]["operation_id"] for one in listed["data"]] == ["r3", "r1"]
        assert (await caller.get(f"/v1/refunds/{listed['data'][0]['id']}"))["amount"] == 300
    assert moves(path) == {"r1": (OperationKind.REFUND, 700, True), "r3": (OperationKind.REFUND, 300, True)}


async def test_a_refund_that_comes_back_has_moved_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    async with served(path, replace(QUIET, slow_refund=1.0)) as caller:
        ref = await caller.authorize(method="automatic")
        _, pending = await caller.refund(ref, "r1", 700)
        assert pending["status"] == "pending"
    books = Books(path)
    books.decide_refund(pending["id"], "failed")
    books.close()
    assert moves(path) == {"r1": (OperationKind.REFUND, 700, False)}
    async with served(path) as caller:
        assert (await caller.refund(ref, "r2", 1000))[0] == 200


def _bracketed(name: str) -> str:
    outer, _, inner = name.partition("__")
    return f"{outer}[{inner}]" if inner else outer


async def test_okane_finds_its_refunds(tmp_path: Path) -> None:
    """They would all wait for a review otherwise, which breaks no invariant."""
    async with gateway_served(tmp_path / "journal", QUIET) as (gateway, provider):
        charged = await provider.charge(CARD_PAYMENT)
        assert isinstance(charged, Approved)
        paid = replace(CARD_PAYMENT, status=Status.SUCCESS, provider_ref=charged.provider_ref)
        refund = replace(OPERATION, kind=OperationKind.REFUND)
        gateway.behaviour = replace(QUIET, fail=1.0)
        assert isinstance(await provider.operate(refund, paid), Unknown)
        gateway.behaviour = QUIET
        assert isinstance(await provider.look_up_operation(refund, paid, may_execute=False), Approved)
