"""The people of torture note every answer as it was: the invariants judge by their journals."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from okane.cli.stores import Stores
from okane.errors import PaymentNotFound, StatusConflict, StoreUnavailable, VersionConflict
from okane.load.client import HttpClient, Reply
from okane.payment import Status
from okane.store.lists import PaymentLists
from okane.store.operations import OperationLists
from okane.store.records import Event
from tests.okane.stripe_answers import CARD_PAYMENT
from torture.history.decisions import Action
from torture.people import customers
from torture.people.customers import Customers
from torture.people.desk import Case, Desk

SEEN = replace(CARD_PAYMENT, version=3)
EVENT = Event(SEEN.id, 1, SEEN.created_at, "canceled", Status.CANCELED, 1, "worker-1", None, None, None)


class Intake:
    """An intake that gives one answer to every decision: its error, or the person who has decided."""

    def __init__(self, answer: str | Exception) -> None:
        self._answer = answer
        self.asked: list[Mapping[str, Any]] = []

    async def cancel(self, _payment_id: object, **asked: Any) -> object:
        self.asked.append(asked)
        if isinstance(self._answer, Exception):
            raise self._answer
        return SEEN

    resolve = retry = cancel

    async def events(self, _payment_id: object) -> Sequence[Event]:
        assert isinstance(self._answer, str)
        actors = ("worker-1", "worker-1", "worker-1", self._answer, "worker-1")
        return [replace(EVENT, version=at, actor=actor) for at, actor in enumerate(actors, 1)]


class IntakeStores:
    def __init__(self, intake: Intake) -> None:
        self.intake = self.payments = intake


def desk_with(intake: Intake) -> Desk:
    return Desk(cast(Stores, IntakeStores(intake)), cast(PaymentLists, None), cast(OperationLists, None))


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        ("operator 7", "done"),
        ("operator 8", "known"),  # another person has decided the same
        (StatusConflict("success", "canceled"), "refused"),
        (VersionConflict("pending", "canceled", seen=3, version=4), "refused"),
        (PaymentNotFound("x"), "refused"),
        (StoreUnavailable("gone"), "lost"),
    ],
)
@pytest.mark.parametrize("action", ["canceled", "resolved", "retried"])
async def test_a_decision_names_its_person_and_version(answer: str | Exception, meaning: str, action: Action) -> None:
    intake = Intake(answer)
    case = Case(SEEN, action, Status.FAILED_FINAL)
    assert await desk_with(intake).decide(case, "operator 7") == meaning
    [asked] = intake.asked
    assert (asked["actor"], asked["version"]) == ("operator 7", 3)


class Shop:
    """An API that loses its first answer to each request, and knows what was deleted."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.accepted: set[str] = set()
        self.deleted = False
        self.bodies: list[Mapping[str, object]] = []

    async def post(self, url: str, body: Mapping[str, object]) -> Reply:
        key = str(body["idempotency_key"])
        if url.endswith("/v1/payment-methods"):
            return self._answer(key, {"payment_method": {"id": "m"}, "created": True})
        self.bodies.append(body)
        if self.deleted and key not in self.accepted:
            return Reply(status=422)
        self.accepted.add(key)
        return self._answer(key, {"payment": {"id": key}, "created": True, "enqueued": True})

    async def delete(self, url: str) -> Reply:
        self.deleted = True
        return self._answer(url, None)

    def _answer(self, what: str, body: Mapping[str, object] | None) -> Reply:
        first = what not in self.seen
        self.seen.add(what)
        return Reply(failure="reset") if first else Reply(status=204 if body is None else 202, body=body)


async def test_a_customer_pays_until_the_method_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(customers, "_AT_ONCE", 1)
    monkeypatch.setattr(customers, "_AGAIN_S", 0.0)
    monkeypatch.setattr(customers, "_PAUSE_S", (0.0, 0.0))
    shop = Shop()
    crowd = Customers(urls=["http://api"], http=cast(HttpClient, shop), seed=1, started_s=time.monotonic())
    answers = iter([False])  # one life
    await crowd.run(lambda: next(answers, True))

    [method] = crowd.methods.values()
    assert set(method.ids) == {"m"}
    assert method.asked_s is not None
    assert method.deleted_s is not None
    assert method.deleted_s >= method.asked_s
    tries = crowd.payments
    assert [one.request.status for one in tries[:2]] == [0, 202]  # the lost answer is in the journal
    assert tries[0].request.key == tries[-1].request.key, "the repeat of the first payment comes last"
    assert (tries[-2].request.status, tries[-1].request.status) == (422, 202)
    assert all(one.status != 422 for one in crowd.requests)
    assert all((("return_url" in body) is body["customer_present"]) for body in shop.bodies)
