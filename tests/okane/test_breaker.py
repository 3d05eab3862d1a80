"""The circuit breaker: when it opens, for how long, and that nothing but a good call closes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from okane.providers.breaker import BreakerRules, Circuit, CircuitBreaker, Verdict

RULES = BreakerRules()
GOOD, BAD, REFUSED, LIMITED = Verdict.GOOD, Verdict.BAD, Verdict.REFUSED, Verdict.LIMITED


def record(breaker: CircuitBreaker, verdict: Verdict, times: int = 1, *, now_s: float = 0.0) -> bool:
    """Record calls that begin and end now; return True if the last of them changed the breaker."""
    changed = False
    for _ in range(times):
        changed = breaker.record(verdict, began_s=now_s, now_s=now_s)
    return changed


def opened(now_s: float = 0.0) -> CircuitBreaker:
    breaker = CircuitBreaker(RULES)
    record(breaker, BAD, 20, now_s=now_s)
    assert breaker.state(now_s) is Circuit.OPEN
    return breaker


def test_it_opens_at_the_twentieth_call_when_half_of_them_are_bad() -> None:
    breaker = CircuitBreaker(RULES)
    record(breaker, GOOD, 10)
    record(breaker, BAD, 9)
    assert breaker.state(0.0) is Circuit.CLOSED
    assert record(breaker, BAD)
    assert breaker.state(0.0) is Circuit.OPEN


def test_nineteen_bad_calls_alone_open_nothing() -> None:
    breaker = CircuitBreaker(RULES)
    record(breaker, BAD, 19)
    assert breaker.state(0.0) is Circuit.CLOSED


def test_less_than_half_bad_calls_open_nothing() -> None:
    breaker = CircuitBreaker(RULES)
    record(breaker, GOOD, 101)
    record(breaker, BAD, 100)
    assert breaker.state(0.0) is Circuit.CLOSED


def test_calls_that_have_left_the_window_do_not_count() -> None:
    breaker = CircuitBreaker(RULES)
    record(breaker, BAD, 19, now_s=0.0)
    record(breaker, BAD, 19, now_s=11.0)
    assert breaker.state(11.0) is Circuit.CLOSED


def test_calls_within_ten_seconds_count_together() -> None:
    breaker = CircuitBreaker(RULES)
    for second in range(8):
        record(breaker, BAD, 2, now_s=float(second))
    record(breaker, BAD, 4, now_s=8.0)
    assert breaker.state(8.0) is Circuit.OPEN


def test_a_refused_key_opens_it_at_once() -> None:
    breaker = CircuitBreaker(RULES)
    assert record(breaker, REFUSED)
    assert breaker.state(0.0) is Circuit.OPEN


def test_rate_limits_neither_open_nor_close_it() -> None:
    breaker = CircuitBreaker(RULES)
    record(breaker, LIMITED, 1000)
    assert breaker.state(0.0) is Circuit.CLOSED
    breaker = opened()
    assert breaker.begin(1.0)
    record(breaker, LIMITED, now_s=1.0)
    assert breaker.state(1.0) is Circuit.HALF_OPEN
    assert breaker.begin(1.0), "another call may be the probe"


def test_it_opens_for_a_second_and_twice_as_long_after_each_failed_probe() -> None:
    breaker, now_s, waits = opened(), 0.0, []
    for _ in range(8):
        wait_s = breaker.wait_s(now_s)
        waits.append(wait_s)
        assert not breaker.begin(now_s + wait_s * 0.99)
        now_s += wait_s
        assert breaker.begin(now_s)
        record(breaker, BAD, now_s=now_s)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_good_probe_closes_it_and_the_next_opening_is_short_again() -> None:
    breaker = opened()
    breaker.begin(1.0)
    record(breaker, BAD, now_s=1.0)
    assert breaker.begin(3.0)
    assert record(breaker, GOOD, now_s=3.0)
    assert breaker.state(3.0) is Circuit.CLOSED
    record(breaker, BAD, 20, now_s=4.0)
    assert breaker.wait_s(4.0) == 1.0


def test_one_call_at_a_time_is_the_probe() -> None:
    breaker = opened()
    assert breaker.begin(1.0)
    assert not breaker.begin(1.0)
    assert breaker.wait_s(1.0) > 0
    breaker.give_back()
    assert breaker.begin(1.1)


def test_a_probe_without_a_result_is_replaced_after_a_while() -> None:
    breaker = opened()
    breaker.begin(1.0)
    assert not breaker.begin(1.0 + RULES.probe_patience_s * 0.9)
    assert breaker.begin(1.0 + RULES.probe_patience_s)


@pytest.mark.parametrize("verdict", [GOOD, BAD, REFUSED])
def test_a_late_result_of_a_call_from_before_it_opened_changes_nothing(verdict: Verdict) -> None:
    breaker = opened(now_s=5.0)
    breaker.begin(6.0)
    assert not breaker.record(verdict, began_s=4.0, now_s=6.5)
    assert breaker.state(6.5) is Circuit.HALF_OPEN


@pytest.mark.parametrize("verdict", [GOOD, BAD, REFUSED])
def test_while_it_is_open_no_result_changes_it(verdict: Verdict) -> None:
    breaker = opened(now_s=5.0)
    assert not breaker.record(verdict, began_s=5.1, now_s=5.2)
    assert breaker.wait_s(5.2) == pytest.approx(0.8)


def test_time_outs_of_the_outage_that_come_after_it_do_not_open_it_again() -> None:
    breaker = opened(now_s=5.0)
    breaker.begin(6.0)
    record(breaker, GOOD, now_s=6.0)
    for _ in range(100):
        breaker.record(BAD, began_s=5.5, now_s=20.0)
    assert breaker.state(20.0) is Circuit.CLOSED


@given(
    st.lists(st.tuples(st.sampled_from(Verdict), st.floats(0, 3, allow_nan=False), st.booleans()), max_size=200),
    st.floats(0, 1e6, allow_nan=False),
)
def test_no_history_breaks_its_promises(history: list[tuple[Verdict, float, bool]], now_s: float) -> None:
    breaker = CircuitBreaker(RULES)
    bad_or_refused = 0
    for verdict, pause_s, asks in history:
        now_s += pause_s
        before = breaker.state(now_s)
        permitted = breaker.begin(now_s) if asks else breaker.may_call(now_s)
        assert permitted or before is not Circuit.CLOSED
        assert not (permitted and before is Circuit.OPEN)
        if not permitted:
            assert 0 < breaker.wait_s(now_s) <= RULES.longest_open_s
            continue
        bad_or_refused += verdict in (BAD, REFUSED)
        breaker.record(verdict, began_s=now_s, now_s=now_s)
        after = breaker.state(now_s)
        if verdict in (GOOD, LIMITED):
            assert after is before or verdict is GOOD
        if verdict is GOOD:
            assert after is Circuit.CLOSED
        if verdict is REFUSED or (verdict is BAD and before is Circuit.HALF_OPEN):
            assert after is Circuit.OPEN
        assert after is Circuit.CLOSED or bad_or_refused
    now_s += RULES.longest_open_s + RULES.probe_patience_s
    assert breaker.begin(now_s), "it never stays shut"


@pytest.mark.parametrize(
    "wrong", [{"first_open_s": 0}, {"least_calls": 0}, {"bad_share": 1.5}, {"longest_open_s": 0.5}]
)
def test_rules_without_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"breaker|positive"):
        BreakerRules(**wrong)  # type: ignore[arg-type]  # the point of the test
