"""Every way of breaking an invariant of saved payment methods is caught, and named as that invariant alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.faults.histories import Story, request, story
from torture.history.journals import History
from torture.history.methods import MethodCharge, MethodHistory, MethodPayment, SavedMethod
from torture.invariants.verdict import check

OF_METHODS = {"I35", "I36"}
Spoil = Callable[[History], History]

BOTH = SavedMethod(
    key="m1",
    ids=("id-m1", "id-m1"),  # two equal requests at once
    customer="cus_1",
    token="pm_1",
    providers=frozenset({"stripe", "http"}),
    asked_s=10.0,
    deleted_s=11.0,
)
KEPT = SavedMethod(key="m2", ids=("id-m2",), customer="cus_2", token="pm_2", providers=frozenset({"stripe"}))


def charged(name: str) -> Story:
    return story(name, "claimed::stripe", "success").charged(provider="stripe")


STORIES: Sequence[Story] = (
    charged("first"),
    charged("later"),
    charged("beside"),  # taken while the method was deleted
    charged("kept"),
    charged("plain"),
    story("elsewhere", "claimed", "success").charged(),
)
BY_NAME = {one.row.id.removeprefix("id-"): one for one in STORIES}


def pay(
    name: str, method: SavedMethod = BOTH, *, present: bool = False, at_s: float = 1.0, **changes: Any
) -> MethodPayment:
    """A try to pay, acknowledged unless something else is said."""
    one = BY_NAME.get(name) or story(name)
    asked = request(one, status=changes.pop("status", 202), sent_s=at_s, answered_s=at_s + 0.5, **changes)
    return MethodPayment(method_key=method.key, is_present=present, request=asked)


PAYMENTS: Sequence[MethodPayment] = (
    pay("first", present=True),
    pay("later", at_s=2),
    pay("elsewhere", at_s=3),
    pay("beside", at_s=10.2, status=0),  # perhaps taken before the deletion
    pay("beside", at_s=12, status=200),
    pay("kept", KEPT),
    pay("unlucky", at_s=10.2, status=422),
    pay("refused", at_s=12, status=422),
    pay("first", present=True, at_s=13, status=200),
)


def token(name: str, method: SavedMethod = BOTH, **changes: Any) -> MethodCharge:
    """The charge of a payment with a method."""
    made = MethodCharge(
        payment_id=f"id-{name}", customer=method.customer, token=method.token, off_session=name != "first"
    )
    return replace(made, **changes)


CHARGES: Sequence[MethodCharge] = (
    token("first"),
    token("later"),
    token("beside"),
    token("kept", KEPT),
    MethodCharge(payment_id="id-plain", customer="", token="pm_card_torture", off_session=False),
)


def good() -> History:
    """Methods that are saved twice at once, charged, and deleted beside a payment."""
    return History(
        rows={one.row.id: one.row for one in STORIES},
        events={one.row.id: one.events for one in STORIES},
        charges=[charge for one in STORIES for charge in one.charges],
        methods=MethodHistory(methods={"m1": BOTH, "m2": KEPT}, payments=PAYMENTS, charges=CHARGES),
    )


def having(**changes: Any) -> Spoil:
    return lambda history: replace(history, methods=replace(history.methods, **changes))


def with_payments(*more: MethodPayment) -> Spoil:
    return having(payments=[*PAYMENTS, *more])


def with_charge(changed: MethodCharge) -> Spoil:
    """Another charge of this payment."""
    return having(charges=[changed if one.payment_id == changed.payment_id else one for one in CHARGES])


BROKEN: dict[str, tuple[str, Spoil]] = {
    "one key for two methods": ("I35", having(methods={"m1": replace(BOTH, ids=("id-m1", "id-m3")), "m2": KEPT})),
    "a new payment after the deletion": ("I35", with_payments(pay("x", at_s=12))),
    "refused before the deletion": ("I35", with_payments(pay("x", at_s=5, status=422))),
    "refused without a deletion": ("I35", with_payments(pay("x", KEPT, at_s=50, status=422))),
    "the repeat of a payment refused": ("I35", with_payments(pay("later", at_s=12, status=422))),
    "the token of another method": ("I36", with_charge(token("first", KEPT, off_session=False))),
    "the token for another customer": ("I36", with_charge(token("later", customer="cus_2"))),
    "the token without its customer": ("I36", with_charge(token("later", customer=""))),
    "the id of the method as the token": ("I36", with_charge(token("later", token="id-m1"))),
    "charged as present": ("I36", with_charge(token("later", off_session=False))),
    "charged as absent": ("I36", with_charge(token("first", off_session=True))),
    "a saved token for a payment that names none": ("I36", with_charge(token("plain"))),
    "charged where the method has no token": (
        "I36",
        having(methods={"m1": replace(BOTH, providers=frozenset({"stripe"})), "m2": KEPT}),
    ),
}


@pytest.mark.parametrize(("invariant", "spoil"), BROKEN.values(), ids=BROKEN)
def test_each_way_of_breaking_an_invariant_is_caught_as_that_alone(invariant: str, spoil: Spoil) -> None:
    verdict = check(spoil(good()))
    assert {violation.invariant for violation in verdict.violations} == {invariant}, verdict.violations


def test_methods_that_are_deleted_beside_a_payment_hold() -> None:
    verdict = check(good())
    assert verdict.violations == []
    judged = {finding.invariant.name: finding.judged for finding in verdict.findings}
    assert (judged["I35"], judged["I36"]) == (9, 4)
