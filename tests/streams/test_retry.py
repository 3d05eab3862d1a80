from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import RetryPolicy

SECOND = timedelta(seconds=1)


def test_the_bound_doubles_until_the_cap() -> None:
    policy = RetryPolicy(base=SECOND, cap=10 * SECOND)
    assert [policy.bound(attempt) / SECOND for attempt in range(1, 7)] == [1, 2, 4, 8, 10, 10]


def test_jitter_is_full() -> None:
    policy = RetryPolicy(base=SECOND, cap=10 * SECOND)
    assert policy.delay(2, roll=0.0) == timedelta(0)
    assert policy.delay(2, roll=0.5) == SECOND


def test_the_last_attempt_has_no_delay() -> None:
    policy = RetryPolicy(max_attempts=3)
    assert policy.delay(2, roll=0.5) is not None
    assert policy.delay(3, roll=0.5) is None
    assert policy.delay(99, roll=0.5) is None


def test_no_limit_never_gives_up_and_never_overflows() -> None:
    policy = RetryPolicy(base=SECOND, cap=300 * SECOND, max_attempts=None)
    assert policy.delay(1_000_000, roll=0.5) == 150 * SECOND


def test_factor_one_is_a_constant() -> None:
    policy = RetryPolicy(base=SECOND, cap=SECOND, factor=1)
    assert policy.bound(1) == policy.bound(7) == SECOND


@given(
    attempt=st.integers(1, 10**6),
    roll=st.floats(0, 1, exclude_max=True),
    base_ms=st.integers(1, 10**6),
    times=st.integers(1, 10**6),
    factor=st.floats(1, 100),
)
def test_a_delay_is_never_negative_nor_above_the_cap(
    attempt: int, roll: float, base_ms: int, times: int, factor: float
) -> None:
    base = timedelta(milliseconds=base_ms)
    policy = RetryPolicy(base=base, cap=base * times, factor=factor, max_attempts=None)
    delay = policy.delay(attempt, roll=roll)
    assert delay is not None
    assert timedelta(0) <= delay <= policy.cap
    assert policy.bound(attempt) >= policy.bound(max(1, attempt - 1))


@pytest.mark.parametrize(
    "bad",
    [
        {"base": timedelta(0)},
        {"base": 2 * SECOND, "cap": SECOND},
        {"factor": 0.5},
        {"max_attempts": 0},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(bad: dict[str, timedelta]) -> None:
    with pytest.raises(ValueError, match="retry policy"):
        RetryPolicy(**bad)  # type: ignore[arg-type] # on purpose


@pytest.mark.parametrize(("attempt", "roll"), [(0, 0.5), (1, 1.0), (1, -0.1)])
def test_attempts_and_rolls_out_of_range_are_refused(attempt: int, roll: float) -> None:
    with pytest.raises(ValueError, match="count from 1"):
        RetryPolicy().delay(attempt, roll=roll)
