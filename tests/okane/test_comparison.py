"""One record of a provider beside one row: they agree, or differ in exactly what was changed."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from okane.operation import OperationStatus
from okane.payment import Status
from okane.providers.listing import ProviderRecord
from okane.reconcile.comparison import compare_charge, compare_operation
from okane.store.movements import BookedOperation, BookedPayment
from tests.okane.money_days import NOON

ID, OTHER = UUID(int=1), UUID(int=2)
AMOUNTS = st.integers(min_value=1, max_value=2**63 - 1)
MOVED = ("succeeded", "authorized", "pending")


def charge(status: str = "succeeded", amount: int = 100, **more: object) -> ProviderRecord:
    plain = ProviderRecord(
        kind="charge",
        at=NOON,
        provider_ref="ch_1",
        status=status,  # type: ignore[arg-type] # one of its statuses
        amount_minor=amount,
        currency="USD",
        payment_id=ID,
    )
    return replace(plain, **more)  # type: ignore[arg-type] # any field


def payment(status: str = "success", amount: int = 100, **more: object) -> BookedPayment:
    return replace(BookedPayment(ID, "a", "p", "ch_1", None, status, amount, "USD"), **more)  # type: ignore[arg-type] # any field


def kinds(record: ProviderRecord, booked: BookedPayment | None) -> list[str]:
    return [one.kind for one in compare_charge(record, booked, provider="p")]


@given(AMOUNTS, AMOUNTS)
def test_a_charge_and_its_payment_differ_in_their_amount_alone(here: int, there: int) -> None:
    assert kinds(charge(amount=there), payment(amount=here)) == ([] if here == there else ["amount"])


@given(st.sampled_from(Status), st.sampled_from([*MOVED, "canceled"]))
def test_every_status_agrees_with_some_record_and_a_success_with_a_charge_that_moved_alone(
    status: Status, there: str
) -> None:
    found = kinds(charge(there), payment(status.value))
    assert set(found) <= {"status"}
    if there == "succeeded":
        assert (found == []) == (status is Status.SUCCESS)
    if status is Status.SUCCESS:
        assert (found == []) == (there == "succeeded")
    if there in MOVED and status in (Status.FAILED_FINAL, Status.CANCELED):
        assert found == ["status"]


def test_another_charge_of_a_payment_is_missing_here_unless_it_was_given_up() -> None:
    for booked in (
        payment(provider_ref="ch_2"),
        payment(provider="other"),
        payment(provider_ref=None, attempt_ref="ch_2"),
    ):
        assert [kinds(charge(there), booked) for there in MOVED] == [["missing_here"]] * 3
        assert kinds(charge("canceled"), booked) == []
    assert kinds(charge(), payment(provider_ref="ca_1", attempt_ref="ch_1")) == []  # a capture has named it
    assert kinds(charge(), None) == ["missing_here"]
    assert kinds(charge(payment_id=None), None) == ["missing_here"]


def test_another_currency_is_one_difference_and_not_another_amount_as_well() -> None:
    assert kinds(charge(currency="EUR", amount=90), payment()) == ["currency"]


@given(AMOUNTS, AMOUNTS)
def test_what_was_captured_counts_where_the_provider_tells_it(here: int, there: int) -> None:
    expected = [] if here == there else ["amount"]
    whole = max(here, there)
    record = charge(amount=whole, captured_minor=there)
    assert kinds(record, payment(amount=whole, amount_captured=here)) == expected
    assert kinds(charge(amount=whole), payment(amount=whole, amount_captured=here)) == []


@given(st.sampled_from(OperationStatus), st.sampled_from(["succeeded", "pending", "failed", "canceled"]), st.booleans())
def test_a_refund_and_its_operation_agree_only_on_the_same_end(
    status: OperationStatus, there: str, same_name: bool
) -> None:
    record = charge(there, kind="refund", operation_id=OTHER, provider_ref="re_1")
    booked = BookedOperation(OTHER, ID, "refund", "p", "re_1" if same_name else "re_2", status.value, 100, "USD")
    found = [one.kind for one in compare_operation(record, booked, provider="p")]
    if not same_name:
        # A failed one was tried again under another key; any other is a second refund.
        assert found == ([] if there in ("failed", "canceled") else ["missing_here"])
    elif there == "succeeded" or status is OperationStatus.SUCCESS:
        assert (found == []) == (there == "succeeded" and status is OperationStatus.SUCCESS)
    else:
        assert set(found) <= {"status"}
