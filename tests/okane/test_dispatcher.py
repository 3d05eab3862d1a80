"""A dispatcher over real Postgres and a real receiver: order, retries, outages, changed endpoints, takeovers, its end."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.okane.dispatching import DispatchDesk, change, dispatch_desk, payments
from tests.okane.webhook_receiver import receiving


@pytest.fixture(name="desk")
async def make_desk(database_url: str) -> AsyncIterator[DispatchDesk]:
    async with receiving() as receiver, dispatch_desk(database_url, receiver) as desk:
        yield desk


async def test_every_event_arrives_signed_and_in_order(desk: DispatchDesk) -> None:
    await desk.endpoint()
    await desk.dispatch()
    ids = payments(20)
    for version in range(1, 6):
        await change(desk.url, ids, version=version)
    await desk.receiver.until(100)
    await desk.at_rest()
    assert desk.receiver.versions() == {str(one): [1, 2, 3, 4, 5] for one in ids}
    assert len(desk.receiver.received) == 100
    assert not desk.receiver.overlaps
    assert await desk.rows("DISTINCT state, attempts, status") == [("delivered", 1, 200)]
