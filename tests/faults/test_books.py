"""A person decides a review by the books of both providers, and only if these leave no doubt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast
from uuid import UUID

import pytest

from okane.operation import OperationKind, OperationStatus
from okane.payment import Status
from okane.simulator.journal import Charge
from okane.simulator.operation_journal import OperationEntry
from tests.okane.stripe_answers import CARD_PAYMENT
from tests.operations import OPERATION
from torture.gateway.books import Books, Intent, Saved
from torture.people.books import outcome_of_operation, outcome_of_payment
from torture.system.cluster import Cluster

PAYMENT = replace(CARD_PAYMENT, status=Status.NEEDS_REVIEW, provider_ref="ch_1")
REFUND = replace(OPERATION, kind=OperationKind.REFUND, status=OperationStatus.NEEDS_REVIEW, provider_ref="re_1")
INTENT = Intent(
    ref="pi_1",
    key="k",
    payment_id=str(PAYMENT.id),
    amount=PAYMENT.amount_minor,
    currency="usd",
    status="succeeded",
    at_s=1.0,
)


class Folder:
    """A folder with the books of both, as a cluster has them."""

    def __init__(self, path: Path) -> None:
        self.folder = self.factory = self
        self.journal = path / "provider.jsonl"
        self.gateway_journal = path / "gateway.jsonl"

    @property
    def cluster(self) -> Cluster:
        return cast(Cluster, self)

    def charge(self, status: str = "captured", amount_minor: int = PAYMENT.amount_minor) -> None:
        at = "2026-12-01T10:00:00+00:00"
        line = Charge(
            key="k",
            payment_id=str(PAYMENT.id),
            amount=amount_minor,
            currency="USD",
            status=status,
            provider_ref="ch_1",
            at=at,
        )
        self.journal.write_bytes(line.to_line())

    def intend(self, intent: Intent) -> None:
        books = Books(self.gateway_journal)
        books.make(intent, Saved("", 200, "{}"))
        books.close()


def test_a_charge_of_that_amount_is_a_success(tmp_path: Path) -> None:
    books = Folder(tmp_path)
    assert outcome_of_payment(books.cluster, PAYMENT) is Status.FAILED_FINAL
    books.charge("declined")
    assert outcome_of_payment(books.cluster, PAYMENT) is Status.FAILED_FINAL
    books.charge()
    assert outcome_of_payment(books.cluster, PAYMENT) is Status.SUCCESS
    assert outcome_of_payment(books.cluster, replace(PAYMENT, id=UUID(int=7))) is Status.FAILED_FINAL


def test_a_payment_in_doubt_is_left_alone(tmp_path: Path) -> None:
    books = Folder(tmp_path)
    books.charge(amount_minor=1)
    assert outcome_of_payment(books.cluster, PAYMENT) is None
    books.charge("authorized")
    assert outcome_of_payment(books.cluster, PAYMENT) is None
    books.charge()
    assert outcome_of_payment(books.cluster, replace(PAYMENT, provider_ref=None)) is None
    books.intend(INTENT)
    assert outcome_of_payment(books.cluster, PAYMENT) is None, "it was charged twice"


@pytest.mark.parametrize("status", ["processing", "requires_action"])
def test_the_gateway_may_still_decide(tmp_path: Path, status: str) -> None:
    books = Folder(tmp_path)
    books.intend(replace(INTENT, status=status))
    assert outcome_of_payment(books.cluster, PAYMENT) is None


def test_a_refund_is_what_the_books_have(tmp_path: Path) -> None:
    books = Folder(tmp_path)
    assert outcome_of_operation(books.cluster, REFUND) is OperationStatus.FAILED_FINAL
    entry = OperationEntry(
        key="k",
        charge="k",
        operation_id=str(REFUND.id),
        payment_id=str(REFUND.payment_id),
        kind="refund",
        amount=REFUND.amount_minor,
        currency="USD",
        status="succeeded",
        provider_ref="re_1",
        at="2026-12-01T10:00:00+00:00",
    )
    books.journal.with_name("provider.jsonl.operations").write_bytes(entry.to_line())
    assert outcome_of_operation(books.cluster, REFUND) is OperationStatus.SUCCESS
    assert outcome_of_operation(books.cluster, replace(REFUND, provider_ref=None)) is None
