"""An endpoint queue: order per payment, holds, the cursor, due rows, and replays."""

from __future__ import annotations

import math

import pytest

from okane.webhooks.breaker import BreakerRules
from okane.webhooks.delivery import HELD, Delivery, Limits
from okane.webhooks.holds import NEVER_SENT_S
from okane.webhooks.queue import BUFFER, MAX_HELD, RETRIES
from okane.webhooks.shares import Kind
from tests.okane.webhook_queues import (
    FAILED,
    GONE,
    OK,
    TIMED_OUT,
    begin_all,
    event,
    offer,
    payment,
    positions,
    queue,
    written,
)


def test_events_begin_in_the_order_of_the_log_up_to_the_slots() -> None:
    one = queue(limits=Limits(max_in_flight=3))
    offer(one, *(event(position) for position in range(1, 6)))
    begun = begin_all(one)
    assert positions(begun) == [1, 2, 3]
    one.finish(begun[1], OK, 0.1)
    assert positions(begin_all(one)) == [4]


def test_a_payment_has_one_request_in_flight() -> None:
    one = queue()
    offer(one, event(1, 7), event(2, 7), event(3, 8), event(4, 7))
    first, other = begin_all(one)
    assert positions([first, other]) == [1, 3]
    one.finish(first, OK, 0.0)
    [second] = begin_all(one)
    assert second.position == 2
    one.finish(second, OK, 0.0)
    assert positions(begin_all(one)) == [4]


def test_a_failed_event_holds_back_the_next_of_its_payment_only() -> None:
    one = queue()
    offer(one, event(1, 7), event(2, 7), event(3, 8))
    first, other = begin_all(one)
    one.finish(first, FAILED, 1.0)
    one.finish(other, OK, 1.0)
    assert begin_all(one, 1.0) == []
    batch = one.collect()
    assert {row.position: (row.state, row.attempts, row.reason) for row in batch.results} == {
        1: ("waiting", 1, "status_5xx\nboom"),
        2: ("waiting", 0, HELD),
        3: ("delivered", 1, None),
    }
    assert batch.done_to == 3


def test_the_success_of_a_retry_wakes_the_event_behind_it() -> None:
    one = queue()
    offer(one, event(1, 7), event(2, 7), event(3, 7))
    [first] = begin_all(one)
    one.finish(first, FAILED, 0.0)
    assert written(one) == {1: "waiting", 2: "waiting", 3: "waiting"}
    for position in (1, 2, 3):
        one.before_reading(5.0)
        one.offer_retries([event(position, 7, attempts=1 if position == 1 else 0)], now_s=5.0)
        [again] = begin_all(one, 5.0)
        assert (again.position, again.kind) == (position, Kind.RETRY)
        one.finish(again, OK, 5.0)
        assert one.has_due_rows is (position < 3)
        batch = one.collect()
        one.confirm()
        woken = [row for row in batch.results if row.state == "waiting"]
        assert [(row.position, row.delay_s, row.is_attempt) for row in woken] == (
            [(position + 1, 0.0, False)] if position < 3 else []
        )


def test_a_new_event_waits_behind_one_that_was_held_back() -> None:
    one = queue()
    offer(one, event(1, 7), event(2, 7))
    [first] = begin_all(one)
    one.finish(first, FAILED, 0.0)
    written(one)
    one.before_reading(5.0)
    one.offer_retries([event(1, 7, attempts=1)], now_s=5.0)
    [again] = begin_all(one, 5.0)
    offer(one, event(3, 7), now_s=5.0)  # into the line of the payment
    one.finish(again, OK, 5.0)
    assert begin_all(one, 5.0) == []
    assert {row.position: row.delay_s for row in one.collect().results} == {1: None, 2: 0.0, 3: 300.0}


def test_after_the_hold_the_next_event_goes() -> None:
    one = queue(limits=Limits(hold_s=300))
    offer(one, event(1, 7))
    [first] = begin_all(one)
    one.finish(first, FAILED, 10.0)
    offer(one, event(2, 7), now_s=309.9)
    assert begin_all(one, 309.9) == []
    offer(one, event(3, 8), now_s=310.0)
    one.before_reading(310.0)
    written(one)
    one.before_reading(310.0)
    one.offer_retries([event(2, 7)], now_s=310.0)
    assert sorted(positions(begin_all(one, 310.0))) == [2, 3]


def test_the_hold_counts_from_the_first_failure() -> None:
    one = queue(limits=Limits(hold_s=300))
    offer(one, event(1, 7))
    one.finish(begin_all(one)[0], FAILED, 0.0)
    for attempts, at_s in ((1, 5.0), (2, 400.0)):
        written(one)
        one.before_reading(at_s)
        one.offer_retries([event(1, 7, attempts=attempts)], now_s=at_s)
        one.finish(begin_all(one, at_s)[0], FAILED, at_s)
    offer(one, event(2, 7), now_s=401.0)
    assert positions(begin_all(one, 401.0)) == [2]


def test_without_a_hold_nothing_is_held_back() -> None:
    one = queue(limits=Limits(hold_s=0))
    offer(one, event(1, 7), event(2, 7))
    one.finish(begin_all(one)[0], FAILED, 1.0)
    assert positions(begin_all(one, 1.0)) == [2]


def test_a_new_owner_holds_back_behind_the_rows_of_the_one_before() -> None:
    one = queue(done_to=2)
    one.load_hold(payment(7), 1, until_s=100.0)
    one.load_hold(payment(8), 2, until_s=NEVER_SENT_S)
    offer(one, event(3, 7), event(4, 8), event(5, 9), now_s=50.0)
    assert positions(begin_all(one, 50.0)) == [5]
    assert {row.position: row.delay_s for row in one.collect().results} == {3: 50.0, 4: 300.0}


def test_a_new_owner_leaves_out_what_has_a_row() -> None:
    one = queue(done_to=2, written=(4, 6))
    offer(one, *(event(position) for position in range(3, 8)))
    assert positions(begin_all(one)) == [3, 5, 7]


def test_the_cursor_stays_before_the_oldest_open_event() -> None:
    one = queue()
    one.offer([event(position) for position in (2, 5, 9)], read_to=12, now_s=0.0)
    first, second, third = begin_all(one)
    assert one.done_to == 1
    one.finish(third, OK, 0.0)
    assert one.collect().done_to == 1
    one.confirm()
    one.finish(first, OK, 0.0)
    assert one.done_to == 4
    one.finish(second, FAILED, 0.0)
    assert (one.done_to, one.collect().done_to) == (12, 12)


def test_events_that_were_taken_before_are_skipped() -> None:
    one = queue(done_to=5)
    offer(one, event(4), event(5), event(6))
    assert positions(begin_all(one)) == [6]


def test_a_due_row_is_not_taken_twice() -> None:
    one = queue(done_to=9)
    one.before_reading(0.0)
    one.offer_retries([event(1, attempts=1)], now_s=0.0)
    one.offer_retries([event(1, attempts=1)], now_s=0.0)
    [first] = begin_all(one)
    one.before_reading(0.0)
    one.finish(first, OK, 0.0)  # while the rows are read: they still say that it waits
    written(one)
    one.offer_retries([event(1, attempts=1)], now_s=0.0)
    assert begin_all(one) == []


def test_a_row_whose_result_is_not_written_is_not_taken() -> None:
    one = queue()
    offer(one, event(1))
    one.finish(begin_all(one)[0], FAILED, 0.0)
    one.before_reading(0.0)
    one.offer_retries([event(1, attempts=1)], now_s=0.0)
    assert begin_all(one) == []


def test_the_last_failed_attempt_gives_up() -> None:
    one = queue()
    one.offer_retries([event(1, 7, attempts=10)], now_s=0.0)
    assert one.finish(begin_all(one)[0], TIMED_OUT, 0.0) == "given_up"
    [row] = one.collect().results
    assert (row.state, row.attempts, row.delay_s, row.reason) == (
        "given_up",
        11,
        None,
        "timeout\nno answer within 15 s",
    )


def test_an_endpoint_that_is_gone_keeps_its_place() -> None:
    one = queue()
    offer(one, event(1), event(2))
    first, second = begin_all(one)
    assert one.finish(first, GONE, 0.0) is None
    one.finish(second, OK, 0.0)
    assert one.stopped
    assert (one.collect().done_to, one.failures) == (0, 0)


def test_failures_in_a_row_are_reported_with_the_batch() -> None:
    one = queue(limits=Limits(max_in_flight=1), rules=BreakerRules(failures=100))
    offer(one, *(event(position) for position in range(1, 6)))
    for answer in (FAILED, OK, FAILED, FAILED):
        one.finish(begin_all(one)[0], answer, 0.0)
    batch = one.collect()
    assert (batch.failures, batch.succeeded, batch.last_error) == (2, True, "status_5xx\nboom")
    one.confirm()
    one.finish(begin_all(one)[0], FAILED, 0.0)
    batch = one.collect()
    assert (batch.failures, batch.succeeded) == (3, False)


def test_a_replay_has_a_cursor_of_its_own() -> None:
    one = queue(done_to=50)
    one.begin_replay(10)
    assert (one.replay_room, one.replay_read_to) == (BUFFER, 10)
    one.offer_replays([event(11), event(12)], read_to=20, now_s=0.0)
    first, second = begin_all(one)
    assert {first.kind, second.kind} == {Kind.REPLAY}
    one.finish(second, OK, 0.0)
    assert one.collect().replayed_to == 10
    one.confirm()
    one.finish(first, OK, 0.0)
    batch = one.collect()
    assert (batch.replayed_to, batch.done_to) == (20, 50)
    one.confirm()
    one.end_replay()
    assert one.is_idle


def test_a_replay_leaves_out_what_is_in_work() -> None:
    one = queue(done_to=50)
    one.offer_retries([event(11, attempts=1)], now_s=0.0)
    one.begin_replay(10)
    one.offer_replays([event(11), event(12)], read_to=12, now_s=0.0)
    assert sorted(positions(begin_all(one))) == [11, 12]


def test_a_replay_that_begins_anew_does_not_pass_what_is_in_memory() -> None:
    one = queue(done_to=50)
    for _ in range(2):
        one.begin_replay(10)
        one.offer_replays([event(11), event(12)], read_to=20, now_s=0.0)
        assert one.collect().replayed_to == 10
        one.confirm()
    sent = begin_all(one)
    assert sorted(positions(sent)) == [11, 12]
    for delivery in sent:
        one.finish(delivery, OK, 0.0)
    assert one.collect().replayed_to == 20


def test_memory_is_bounded() -> None:
    one = queue(limits=Limits(max_in_flight=1))
    offer(one, *(event(position) for position in range(1, BUFFER + 1)))
    assert one.room == 0
    one.offer_retries([event(position, attempts=1) for position in range(1000, 1000 + RETRIES)], now_s=0.0)
    assert one.retry_room == 0
    other = queue()
    for number in range(MAX_HELD):
        other.load_hold(payment(number), 1 + number, until_s=10.0 + number)
    assert other.room == 0
    other.before_reading(11.0)
    assert other.room == BUFFER


def test_a_batch_is_written_before_the_next_is_collected() -> None:
    one = queue()
    offer(one, event(1))
    one.finish(begin_all(one)[0], OK, 0.0)
    one.collect()
    with pytest.raises(RuntimeError, match="not written"):
        one.collect()


def test_a_delivery_whose_request_did_not_begin_is_first_again() -> None:
    one = queue(limits=Limits(max_in_flight=1))
    offer(one, event(1), event(2))
    [first] = begin_all(one)
    one.give_back(first)
    assert positions(begin_all(one)) == [1]


def test_an_idle_queue_waits_for_nothing() -> None:
    one = queue()
    assert one.is_idle
    assert one.wake_at_s(0.0) is None
    offer(one, event(1))
    assert not one.is_idle
    delivery: Delivery[str] = begin_all(one)[0]
    one.finish(delivery, OK, math.pi)
    assert not one.is_idle  # its result is not written
    written(one)
    assert one.is_idle


def test_a_replay_sends_an_event_again_that_was_delivered_a_moment_ago() -> None:
    """Written results are remembered during a read of due rows only: else all that a queue has delivered stayed in memory."""
    one = queue()
    offer(one, event(1))
    [first] = begin_all(one)
    one.finish(first, OK, 0.0)
    one.collect()
    one.confirm()
    one.begin_replay(0)
    one.offer_replays([event(1)], read_to=1, now_s=0.0)
    assert positions(begin_all(one)) == [1]


def test_a_replayed_event_that_is_held_back_waits_in_its_row_whatever_that_says() -> None:
    """Without a duration the row of a delivered event stays delivered: it never comes again, and holds back the others."""
    one = queue(done_to=50)
    one.begin_replay(0)
    one.offer_replays([event(1, 7), event(2, 7)], read_to=2, now_s=0.0)
    [first] = begin_all(one)
    one.finish(first, FAILED, 0.0)
    [_, held] = sorted(one.collect().results, key=lambda row: row.position)
    assert (held.state, held.reason, held.ms) == ("waiting", HELD, 0)


def test_a_retry_that_is_held_back_looks_again_soon() -> None:
    """It is not woken as an event is that was never sent."""
    one = queue(done_to=50)
    one.load_hold(payment(7), 1, until_s=NEVER_SENT_S)
    one.offer_retries([event(2, 7, attempts=1)], now_s=0.0)
    assert begin_all(one) == []
    [row] = one.collect().results
    assert (row.position, row.reason, row.delay_s) == (2, HELD, 5)
