"""The fallback after a soft decline: only once the charge is closed at its provider, and that is written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest

from okane.errors import StoreUnavailable
from okane.payment import Payment, Status
from okane.providers.base import Approved, ChargeResult, Declined, LookUpResult, Pending, Unavailable, Unknown
from okane.store import Claim, ProviderEvent, ProviderEventStore, Settlement
from okane.worker.outcome_rules import MAX_RELEASES
from streams import Done, Retry
from tests.okane.stored_payments import GRACE, expire_lease
from tests.okane.test_provider_choice import Counter

SOFT = Declined("insufficient_funds", "", "pi_1", soft=True)
ROUTE = {"candidates": ["first", "second"], "soft_fallback": True}


@pytest.fixture
async def counter(database_url: str) -> AsyncIterator[Counter]:
    one = Counter(database_url)
    one.first.charges = lambda: SOFT
    yield one
    await one.store.aclose()


async def events(counter: Counter, payment_id: UUID) -> list[tuple[str, str | None]]:
    return [(one.event, one.provider) for one in await counter.store.events(payment_id)][1:]


async def test_a_soft_decline_goes_to_the_next_candidate_under_a_new_key(counter: Counter) -> None:
    payment_id = await counter.accept(**ROUTE)
    assert isinstance(await counter.wake(payment_id), Retry)
    between = await counter.payment(payment_id)
    assert (between.status, between.attempt_ref, between.candidates) == (Status.FAILED_RETRYABLE, None, ["second"])
    assert (between.provider_key, between.retries) == (f"{payment_id}:2", 0)
    assert await counter.wake(payment_id) == Done()
    assert counter.first.asked == [f"charge {payment_id}", "release pi_1"]
    assert counter.second.asked == [f"charge {payment_id}:2"]
    claims = [("claimed", None), ("fell_back", "first"), ("claimed", None), ("success", "second")]
    assert await events(counter, payment_id) == claims
    assert [one.decline_code for one in await counter.store.events(payment_id)][2] == "insufficient_funds"


async def test_the_last_candidate_declines_for_good(counter: Counter) -> None:
    counter.second.charges = lambda: SOFT
    payment_id = await counter.accept(**ROUTE)
    await counter.wake(payment_id)
    assert await counter.wake(payment_id) == Done()
    payment = await counter.payment(payment_id)
    assert (payment.status, payment.decline_code) == (Status.FAILED_FINAL, "insufficient_funds")
    assert "release pi_1" not in counter.second.asked


@pytest.mark.parametrize(
    ("route", "declined"),
    [
        ({"candidates": ["first", "second"]}, SOFT),
        ({"candidates": ["first"], "soft_fallback": True}, SOFT),
        ({"requested_provider": "first", "soft_fallback": True}, SOFT),
        (ROUTE, Declined("stolen_card", "", "pi_1")),
    ],
    ids=["unavailable only", "one candidate", "requested", "hard"],
)
async def test_every_other_decline_is_final(counter: Counter, route: dict[str, object], declined: Declined) -> None:
    counter.first.charges = lambda: declined
    payment_id = await counter.accept(**route)
    assert await counter.wake(payment_id) == Done()
    assert (await counter.payment(payment_id)).status is Status.FAILED_FINAL
    assert counter.first.asked == [f"charge {payment_id}"]


@pytest.mark.parametrize("answer", [Unknown("no answer"), Unavailable("503")])
async def test_until_the_charge_is_closed_the_payment_stays_with_its_provider(
    counter: Counter, answer: LookUpResult
) -> None:
    counter.first.releases = lambda _: answer
    counter.first.look_ups = lambda: SOFT
    payment_id = await counter.accept(**ROUTE)
    await counter.wake(payment_id)
    payment = await counter.payment(payment_id)
    assert (payment.status, payment.attempt_ref, payment.provider_key) == (Status.UNKNOWN, "pi_1", str(payment_id))
    counter.gates["first"].open = False
    assert isinstance(await counter.wake(payment_id), Retry)
    assert counter.second.asked == []
    counter.gates["first"].open = True
    counter.first.releases = lambda declined: declined
    await counter.wake(payment_id)
    assert await counter.wake(payment_id) == Done()
    assert (await counter.payment(payment_id)).provider == "second"


async def test_a_decline_that_cannot_be_closed_is_final(counter: Counter) -> None:
    counter.first.look_ups = lambda: SOFT
    for answer, wakes in ((Unknown("never", at_once=True), 1), (Unknown("no answer"), MAX_RELEASES + 1)):
        counter.first.releases = lambda _, answer=answer: answer  # type: ignore[misc]  # bound now
        payment_id = await counter.accept(**ROUTE)
        for _ in range(wakes):
            await counter.wake(payment_id)
        payment = await counter.payment(payment_id)
        assert (payment.status, payment.decline_code) == (Status.FAILED_FINAL, "insufficient_funds")
    assert counter.second.asked == []


@pytest.mark.parametrize(
    ("found", "status"), [(Approved("ch_1"), Status.SUCCESS), (Pending("pi_1"), Status.SUBMITTED)], ids=str
)
async def test_a_charge_that_moved_after_all_is_what_it_is(
    counter: Counter, found: ChargeResult, status: Status
) -> None:
    counter.first.releases = lambda _: found
    payment_id = await counter.accept(**ROUTE)
    await counter.wake(payment_id)
    assert (await counter.payment(payment_id)).status is status
    assert counter.second.asked == []


async def test_a_worker_that_dies_after_the_release_leaves_the_payment_pinned_and_the_next_one_releases_again(
    counter: Counter,
) -> None:
    payment_id = await counter.accept(**ROUTE)
    await counter.store.claim(payment_id)  # charged, declined, closed there; its worker dies before it writes that
    await expire_lease(counter.url, payment_id)
    counter.gates["first"].open = False
    assert isinstance(await counter.wake(payment_id), Retry)
    counter.gates["first"].open = True
    counter.first.look_ups = lambda: SOFT
    await counter.wake(payment_id)
    assert await counter.wake(payment_id) == Done()
    assert counter.first.asked == [f"replay {payment_id}", "release pi_1"]
    assert [one.startswith("charge") for one in counter.second.asked] == [True]


async def fallen_back(counter: Counter) -> tuple[UUID, Settlement]:
    """Return a claimed payment and the fallback of its attempt."""
    payment_id = await counter.accept(**ROUTE)
    assert isinstance(await counter.store.claim(payment_id), Claim)
    return payment_id, Settlement(
        payment_id, 1, Status.FAILED_RETRYABLE, "fell_back", "charge", "first", timedelta(seconds=1), delay=timedelta(0)
    )


async def test_a_fallback_whose_reply_was_lost_is_written_once(counter: Counter) -> None:
    payment_id, settlement = await fallen_back(counter)
    assert await counter.store.fall_back(settlement) is not None
    assert await counter.store.fall_back(settlement) is not None
    assert [name for name, _ in await events(counter, payment_id)] == ["claimed", "fell_back"]


async def test_an_attempt_that_has_lost_the_payment_cannot_let_it_go(counter: Counter) -> None:
    payment_id, settlement = await fallen_back(counter)
    await expire_lease(counter.url, payment_id)
    assert isinstance(await counter.store.claim(payment_id), Claim)
    assert await counter.store.fall_back(settlement) is None
    assert (await counter.payment(payment_id)).candidates == ["first", "second"]


async def test_a_fallback_survives_a_postgres_that_is_away(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    fall_back, left = counter.store.fall_back, [StoreUnavailable("away")]

    async def sometimes(settlement: Settlement) -> timedelta | None:
        if left:
            raise left.pop()
        return await fall_back(settlement)

    monkeypatch.setattr(counter.store, "fall_back", sometimes)
    payment_id = await counter.accept(**ROUTE)
    await counter.wake(payment_id)
    assert await counter.wake(payment_id) == Done()
    assert counter.second.asked == [f"charge {payment_id}:2"]


async def test_the_notice_of_its_own_cancellation_does_not_keep_a_payment_at_the_provider_that_has_declined_it(
    counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway sends it while the worker waits for the answer, so that it is followed up after the fallback."""
    notices = ProviderEventStore(counter.url, grace=GRACE)
    payment_id = await counter.accept(**ROUTE)

    async def release(payment: Payment, declined: Declined) -> LookUpResult:
        canceled = ProviderEvent(
            "evt_1", "payment_intent.canceled", payment.id, "pi_1", provider_key=payment.provider_key, is_refusal=True
        )
        await notices.take("first", [canceled])
        return declined

    monkeypatch.setattr(counter.first, "release", release)
    counter.gates["second"].open = False  # the next candidate cannot charge at once
    assert isinstance(await counter.wake(payment_id), Retry)
    assert await notices.wake_noticed() == []
    assert (await counter.payment(payment_id)).attempt_ref is None
    assert isinstance(await counter.wake(payment_id), Retry)
    counter.gates["second"].open = True
    assert await counter.wake(payment_id) == Done()
    assert counter.first.asked == [f"charge {payment_id}"]
    assert (await counter.payment(payment_id)).provider == "second"
    await notices.aclose()
