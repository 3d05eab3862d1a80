"""Endpoints that fail for long or are gone: reported, disabled, and resumed at their place."""

from __future__ import annotations

import pytest

from okane.store.webhook_endpoints import Endpoint
from tests.okane.webhook_desk import Desk, Row, batch, leased, make_desk, result  # noqa: F401 - a fixture
from tests.okane.webhook_rows import log_event


async def events_of(desk: Desk, endpoint: Endpoint) -> list[Row]:
    return await desk.rows(f"type, versions[1], account_id, payment_ids[1] = '{endpoint.id}'", "webhook_outbox")


async def test_a_failing_endpoint_is_reported_after_an_hour_and_after_a_day(desk: Desk) -> None:
    queue = await leased(desk)
    await desk.one.write([batch(queue, failures=3, succeeded=False, error="timeout")], 0.0)
    await desk.let_pass("59 min")
    assert await desk.one.report_failing() == []
    await desk.let_pass("2 min")
    [report] = await desk.one.report_failing()
    assert (report.endpoint_id, report.account_id, report.last_error) == (queue.endpoint.id, "default", "timeout")
    assert await desk.one.report_failing() == []
    assert await events_of(desk, queue.endpoint) == [("webhook_endpoint.failing", 2, "default", True)]
    await desk.let_pass("23 h")
    assert len(await desk.one.report_failing()) == 1
    assert await desk.one.report_failing() == []
    assert [row[1] for row in await events_of(desk, queue.endpoint)] == [2, 3]
    assert await desk.other.report_failing() == []


@pytest.mark.parametrize("reason", ["gone", "failing"])
async def test_an_endpoint_is_disabled_and_keeps_its_place(desk: Desk, reason: str) -> None:
    queue = await leased(desk)
    for _ in range(4):
        await log_event(desk.url)
    await desk.one.write([batch(queue, done_to=4, failures=3, succeeded=False, error="status_410")], 0.0)
    await desk.let_pass("4 days 23 hours")
    assert await desk.one.disable([]) == []
    if reason == "failing":
        await desk.let_pass("2 hours")
    assert await desk.other.disable([queue.endpoint.id]) == []
    [disabled] = await desk.one.disable([queue.endpoint.id] if reason == "gone" else [])
    assert (disabled.reason, disabled.last_error) == (reason, "status_410")
    assert await desk.one.disable([queue.endpoint.id]) == []
    assert [row[0] for row in await events_of(desk, queue.endpoint)] == ["webhook_endpoint.disabled"]
    [state] = await desk.endpoints.list("default")
    assert (state.endpoint.status, state.endpoint.disabled_reason) == ("disabled", reason)
    [(changed, _)] = await desk.one.changed()
    assert changed.status == "disabled"
    await desk.one.release([changed.id])
    enabled = await desk.endpoints.enable("default", changed.id, from_now=False)
    assert enabled is not None
    [again] = await desk.one.lease(10)
    assert (again.done_to, again.failures) == (4, 0)


async def test_an_endpoint_that_resumes_at_the_end_is_taken_from_its_owner(desk: Desk) -> None:
    queue = await leased(desk)
    await desk.endpoints.enable("default", queue.endpoint.id, from_now=True)
    assert await desk.one.owned() == {}
    assert await desk.one.write([batch(queue, result(1), done_to=1)], 0.0) == set()
    assert await desk.other.lease(10) == []  # until the lease of the first has run out: it may still send
    await desk.let_pass("11 s")
    assert [(one.epoch, one.taken_over) for one in await desk.other.lease(10)] == [(queue.epoch + 2, False)]


@pytest.mark.parametrize("how", ["redeliver", "recover"])
async def test_the_owner_learns_of_deliveries_to_repeat(desk: Desk, how: str) -> None:
    """It does not look for them: the version of the endpoint rises."""
    queue = await leased(desk)
    position = await log_event(desk.url)
    if how == "redeliver":
        await desk.deliveries.redeliver("default", queue.endpoint.id, position)
    else:
        await desk.deliveries.recover("default", queue.endpoint.id, first=position, last=position, only_failed=True)
    [(changed, _)] = await desk.one.changed()
    assert changed.version == queue.endpoint.version + 1
