"""Woken payments at the desk of a worker: a notice leads to a fetch, and its loss to a later one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest

from okane.payment import Status
from okane.providers.base import Approved, Declined, Pending
from okane.store import ProviderEvent, ProviderEventStore
from streams import Done, Retry
from tests.okane.charging import Desk, desk, wake_up
from tests.okane.stored_payments import GRACE, execute

__all__ = ["desk"]


@pytest.fixture
async def events(desk: Desk) -> AsyncIterator[ProviderEventStore]:
    store = ProviderEventStore(desk.url, grace=GRACE)
    yield store
    await store.aclose()


async def submitted(desk: Desk) -> UUID:
    desk.provider.charges = desk.provider.look_ups = lambda: Pending("pi_1")
    payment_id = await desk.accepted()
    assert await desk.charge(wake_up(payment_id)) == Retry("pending", after=timedelta(minutes=1))
    return payment_id


async def notice(events: ProviderEventStore, payment_id: UUID, event_id: str = "evt_1", *, kind: str = "paid") -> None:
    [taken] = await events.take("scripted", [ProviderEvent(event_id, kind, payment_id, "pi_1")])
    assert taken.wake_up is not None


async def time_has_come(desk: Desk) -> None:
    await execute(desk.url, "UPDATE payments SET retry_at = now()", [])


async def test_what_a_notice_says_decides_nothing_and_the_fetch_everything(
    desk: Desk, events: ProviderEventStore
) -> None:
    payment_id = await submitted(desk)
    desk.provider.look_ups = lambda: Declined("expired_card")
    await notice(events, payment_id, kind="paid")
    assert await desk.charge(wake_up(payment_id)) == Done()
    assert await desk.status(payment_id) is Status.FAILED_FINAL
    assert [asked.split()[0] for asked in desk.provider.asked] == ["charge", "look"]


async def test_a_lost_notice_costs_a_minute(desk: Desk) -> None:
    payment_id = await submitted(desk)
    desk.provider.look_ups = lambda: Approved("pi_1")
    await time_has_come(desk)
    assert await desk.charge(wake_up(payment_id)) == Done()
    assert await desk.status(payment_id) is Status.SUCCESS


async def test_notices_that_decide_nothing_neither_put_off_polls_nor_pile_up_wake_ups(
    desk: Desk, events: ProviderEventStore
) -> None:
    payment_id = await submitted(desk)
    for number in range(5):
        await notice(events, payment_id, f"evt_{number}")
        assert await desk.charge(wake_up(payment_id)) == Retry("pending", after=timedelta(minutes=1))
        assert await desk.charge(wake_up(payment_id)) == Done()  # the wake-up of the poll before
    await time_has_come(desk)
    assert await desk.charge(wake_up(payment_id)) == Retry("pending", after=timedelta(minutes=5))


async def test_a_poll_that_comes_a_little_early_is_kept(desk: Desk) -> None:
    payment_id = await submitted(desk)
    await execute(desk.url, "UPDATE payments SET retry_at = now() + interval '20 s'", [])
    early = await desk.charge(wake_up(payment_id))
    assert isinstance(early, Retry)
    assert early.after is not None
    assert timedelta(seconds=15) < early.after <= timedelta(seconds=21)
