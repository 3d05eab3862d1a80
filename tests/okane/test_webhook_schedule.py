"""The schedule of retries, and the circuit breaker of an endpoint."""

from __future__ import annotations

import pytest

from okane.webhooks.breaker import BreakerRules, Circuit, EndpointBreaker
from okane.webhooks.schedule import DELAYS_S, pause_s, retry_delay_s

HOUR_S = 3600.0
ALMOST_ONE = 1 - 2**-53


def test_the_retries_last_for_76_hours_at_most() -> None:
    longest = [retry_delay_s(attempts, roll=ALMOST_ONE) or 0.0 for attempts in range(1, 11)]
    assert 75 * HOUR_S < sum(longest) < 76 * HOUR_S
    assert longest == pytest.approx(DELAYS_S)
    assert retry_delay_s(11, roll=0.0) is None


def test_half_of_a_delay_is_jitter() -> None:
    assert [retry_delay_s(2, roll=roll) for roll in (0.0, 0.5)] == [15.0, 22.5]


def test_retry_after_postpones_and_never_brings_forward() -> None:
    assert retry_delay_s(1, roll=0.0, retry_after_s=60.0) == 60.0
    assert retry_delay_s(1, roll=0.0, retry_after_s=0.5) == 2.5
    assert retry_delay_s(1, roll=0.0, retry_after_s=1e300) == HOUR_S
    assert (pause_s(None), pause_s(-5.0), pause_s(7.0)) == (0.0, 0.0, 7.0)


@pytest.mark.parametrize(("attempts", "roll"), [(0, 0.5), (1, 1.0), (1, -0.1)])
def test_an_impossible_attempt_or_roll_is_an_error(attempts: int, roll: float) -> None:
    with pytest.raises(ValueError, match="attempts count from 1"):
        retry_delay_s(attempts, roll=roll)


def fail(breaker: EndpointBreaker, times: int, now_s: float = 0.0) -> None:
    for _ in range(times):
        breaker.fail(now_s, probe=False)


def test_four_failures_leave_it_closed_and_a_success_forgets_them() -> None:
    breaker = EndpointBreaker()
    fail(breaker, 4)
    breaker.succeed(8)
    fail(breaker, 4)
    assert (breaker.state, breaker.slots(8)) == (Circuit.CLOSED, 8)


def test_probes_are_up_to_five_minutes_apart() -> None:
    breaker = EndpointBreaker()
    fail(breaker, 5)
    waits, now_s = [], 0.0
    for _ in range(11):
        waits.append(breaker.wait_s(now_s))
        now_s += waits[-1]
        assert breaker.slots(8) == 1
        breaker.fail(now_s, probe=True)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert breaker.opened == 1


def test_late_failures_of_before_do_not_postpone_the_probe() -> None:
    breaker = EndpointBreaker()
    fail(breaker, 12)
    assert breaker.wait_s(0.0) == 1


def test_the_slots_double_with_every_ten_successes() -> None:
    breaker = EndpointBreaker()
    fail(breaker, 5)
    slots = []
    for _ in range(41):
        breaker.succeed(16)
        slots.append(breaker.slots(16))
    assert slots == [1] * 10 + [2] * 10 + [4] * 10 + [8] * 10 + [16]
    assert breaker.state is Circuit.CLOSED


def test_one_slot_is_all_of_one() -> None:
    breaker = EndpointBreaker()
    fail(breaker, 5)
    breaker.succeed(1)
    assert breaker.state is Circuit.CLOSED


def test_an_endpoint_that_fails_again_while_it_recovers_waits_longer() -> None:
    breaker = EndpointBreaker()
    fail(breaker, 5)
    breaker.succeed(8)
    fail(breaker, 5, now_s=10.0)
    assert (breaker.state, breaker.wait_s(10.0), breaker.opened) == (Circuit.OPEN, 2.0, 2)


def test_after_it_has_closed_the_waits_are_short_again() -> None:
    breaker = EndpointBreaker(BreakerRules(successes=1))
    for _ in range(2):
        fail(breaker, 5)
        for _ in range(4):
            breaker.succeed(8)
        assert breaker.state is Circuit.CLOSED
    fail(breaker, 5, now_s=50.0)
    assert breaker.wait_s(50.0) == 1


@pytest.mark.parametrize("rules", [{"failures": 0}, {"first_open_s": 0.0}, {"longest_open_s": 0.5}, {"successes": 0}])
def test_impossible_rules_are_an_error(rules: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a breaker needs"):
        BreakerRules(**rules)  # type: ignore[arg-type] # counts and seconds
