"""The pace of an endpoint queue: lease, rate limit, shares of the slots, pauses, and outages."""

from __future__ import annotations

from okane.webhooks.breaker import Circuit
from okane.webhooks.delivery import Limits
from okane.webhooks.shares import Kind
from tests.okane.webhook_queues import (
    FAILED,
    OK,
    Ended,
    begin_all,
    event,
    offer,
    queue,
    written,
)


def test_nothing_begins_after_the_lease() -> None:
    one = queue()
    one.lease.until_s = 10.0
    offer(one, event(1), event(2))
    assert one.begin(9.99) is not None
    assert one.begin(10.0) is None


def test_nothing_begins_when_stopped() -> None:
    one = queue()
    offer(one, event(1))
    one.stopped = True
    assert one.begin(0.0) is None
    assert one.wake_at_s(0.0) is None


def test_the_rate_limit_spreads_requests() -> None:
    one = queue(limits=Limits(max_in_flight=64, rate_limit=20))
    offer(one, *(event(position) for position in range(1, 200)))
    begun, now_s = 0, 0.0
    while now_s < 5:
        for delivery in begin_all(one, now_s):
            one.finish(delivery, OK, now_s)
            begun += 1
        wake_at_s = one.wake_at_s(now_s)
        assert wake_at_s is not None
        assert wake_at_s > now_s
        now_s = wake_at_s
    assert 100 <= begun <= 103


def test_a_changed_rate_limit_counts_at_once() -> None:
    one = queue(limits=Limits(rate_limit=1))
    offer(one, *(event(position) for position in range(1, 9)))
    assert len(begin_all(one)) == 1
    one.change(Limits(), 0.0)
    assert len(begin_all(one)) == 7


def test_live_events_retries_and_replays_share_the_slots_two_to_one_to_one() -> None:
    one = queue(limits=Limits(max_in_flight=8))
    offer(one, *(event(position) for position in range(1, 40)))
    one.offer_retries([event(position, attempts=1) for position in range(100, 140)], now_s=0.0)
    one.begin_replay(200)
    one.offer_replays([event(position) for position in range(201, 240)], read_to=240, now_s=0.0)
    kinds = [one.kind for one in begin_all(one)]
    assert [kinds.count(kind) for kind in Kind] == [4, 2, 2]


def test_slow_retries_leave_the_slots_of_live_events_alone() -> None:
    one = queue(limits=Limits(max_in_flight=8))
    offer(one, *(event(position) for position in range(1, 200)))
    one.offer_retries([event(position, attempts=1) for position in range(300, 340)], now_s=0.0)
    live = begin_all(one)
    for _ in range(30):  # a retry never ends here, a live event at once
        for delivery in live:
            if delivery.kind is Kind.LIVE:
                one.finish(delivery, OK, 0.0)
        live = begin_all(one)
        assert sum(one.kind is Kind.LIVE for one in live) >= 5


def test_a_single_slot_is_shared_over_time() -> None:
    one = queue(limits=Limits(max_in_flight=1))
    offer(one, *(event(position) for position in range(1, 40)))
    one.offer_retries([event(position, attempts=1) for position in range(100, 140)], now_s=0.0)
    kinds = []
    for _ in range(30):
        [delivery] = begin_all(one)
        kinds.append(delivery.kind)
        one.finish(delivery, OK, 0.0)
    assert kinds.count(Kind.RETRY) == 10


def test_unused_slots_go_to_the_others() -> None:
    one = queue(limits=Limits(max_in_flight=8))
    one.offer_retries([event(position, attempts=1) for position in range(100, 140)], now_s=0.0)
    assert len(begin_all(one)) == 8


def test_retry_after_of_an_overloaded_endpoint_pauses_the_queue() -> None:
    one = queue()
    offer(one, event(1), event(2))
    first = one.begin(0.0)
    assert first is not None
    one.finish(first, Ended("status_5xx", 503, retry_after=30.0), 0.0)
    assert one.begin(29.9) is None
    assert one.wake_at_s(1.0) == 30.0
    assert one.begin(30.0) is not None
    [row] = one.collect().results
    assert row.delay_s == 30.0


def test_retry_after_of_another_status_postpones_the_event_only() -> None:
    one = queue()
    offer(one, event(1), event(2))
    first = one.begin(0.0)
    assert first is not None
    one.finish(first, Ended("status_4xx", 400, retry_after=3.0e9), 0.0)
    assert one.begin(0.0) is not None
    [row] = one.collect().results
    assert row.delay_s == 3600.0


def test_five_failures_in_a_row_leave_a_single_probe() -> None:
    one = queue()
    offer(one, *(event(position) for position in range(1, 20)))
    for delivery in begin_all(one)[:5]:
        one.finish(delivery, FAILED, 0.0)
    assert one.breaker.state is Circuit.OPEN
    assert one.begin(5.0) is None  # three requests from before are in flight


def test_a_failed_probe_costs_its_event_no_attempt_and_the_next_is_another() -> None:
    one = queue(limits=Limits(max_in_flight=5))
    offer(one, *(event(position) for position in range(1, 9)))
    for delivery in begin_all(one):
        one.finish(delivery, FAILED, 0.0)
    assert len(written(one)) == 5
    probed, now_s = [], 0.0
    for _ in range(6):
        wake_at_s = one.wake_at_s(now_s)
        assert wake_at_s is not None
        now_s = wake_at_s
        [probe] = begin_all(one, now_s)
        probed.append(probe.position)
        assert one.finish(probe, FAILED, now_s) is None
    assert probed == [6, 7, 8, 6, 7, 8]
    assert not one.has_results
    assert one.done_to == 5
    assert now_s == 1 + 2 + 4 + 8 + 16 + 32


def test_after_an_outage_the_slots_open_slowly() -> None:
    one = queue(limits=Limits(max_in_flight=8))
    offer(one, *(event(position) for position in range(1, 200)))
    for delivery in begin_all(one):
        one.finish(delivery, FAILED, 0.0)
    slots = []
    for _ in range(32):
        begun = begin_all(one, 1.0)
        slots.append(one.in_flight)
        one.finish(begun[0], OK, 1.0)
        for other in begun[1:]:
            one.give_back(other)
    assert slots == [1] * 11 + [2] * 10 + [4] * 10 + [8]
