"""Texts of providers that repeat a secret or a card number: neither gets into a row, an event or a log."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from okane import logs
from okane.providers.base import Approved, ChargeResult, Declined, LookUpResult, NotFound, Pending, Unavailable, Unknown
from okane.providers.redaction import clean_text, without_secrets
from tests.okane.charging import Desk, desk, wake_up

__all__ = ["desk"]

SECRET = "payu/canary-secret"
CARD = "4242 4242 4242 4242"
LEAKS = (SECRET, "sk_live_canary1", "rk_test_canary2", "whsec_canary3", "Bearer canary4", "Basic Y2FuYXJ5", CARD)


@pytest.fixture(autouse=True)
def _loaded() -> None:
    logs.register_secret(SECRET)


@pytest.mark.parametrize("leak", LEAKS)
def test_a_text_of_a_provider_is_cleaned(leak: str) -> None:
    for result in (
        Declined(f"code {leak}", f"message {leak}!", "pi_1", soft=True),
        Unavailable(f"HTTP 401 {leak}", fault="config"),
        Unknown(f"HTTP 500 {leak}", at_once=True),
    ):
        clean = without_secrets(result)
        assert leak not in repr(clean)
        assert type(clean) is type(result)
    assert without_secrets(Declined(leak, leak, "pi_1", soft=True)).provider_ref == "pi_1"


def test_what_holds_no_secret_stays() -> None:
    results: list[LookUpResult] = [
        Approved("pi_1"),
        Pending("pi_1"),
        NotFound(),
        Declined("insufficient_funds", "Your card has insufficient funds.", "pi_1", soft=True),
        Unavailable("HTTP 503"),
        Unknown("no answer within 5 s"),
    ]
    for result in results:
        assert without_secrets(result) == result


@given(before=st.integers(0, 255))
def test_a_secret_that_the_end_of_a_text_cuts_off_is_removed(before: int) -> None:
    text = f"{'x' * before} {SECRET}"[:255]
    assert "canary" not in clean_text(text)


@pytest.mark.parametrize("make", [lambda text: Declined(text, text), Unavailable, Unknown])
async def test_no_row_and_no_event_holds_a_secret(desk: Desk, make: Callable[[str], ChargeResult]) -> None:
    payment_id = await desk.accepted()
    desk.provider.charges = lambda: make(f"refused {SECRET} {CARD} sk_live_canary")
    await desk.charge(wake_up(payment_id))
    payment = await desk.store.get(payment_id, account_id="default")
    events = await desk.store.events(payment_id)
    assert "refused" in repr(payment)
    for leak in (SECRET, CARD, "canary"):
        assert leak not in repr(payment) + repr(events)
