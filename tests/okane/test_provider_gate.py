"""The gates of a worker: when a claim may choose a provider, how much may be in hand, and what is not burned."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry

from okane.metrics import OkaneMetrics
from okane.providers.base import Approved, Authorized, Declined, LookUpResult, NotFound, Pending, Unavailable, Unknown
from okane.providers.breaker import BreakerRules, Verdict
from okane.worker import provider_gate
from okane.worker.provider_gate import Limiter, ProviderGate, ProviderGates, verdict_of

MOST = 100
SLOW = BreakerRules(first_open_s=30)  # it stays open while a test runs
QUICK = BreakerRules(first_open_s=0.02, longest_open_s=0.02)
TIMED_OUT, NO_CONNECTION = Unknown("timed out"), Unavailable("refused")


class Limit(Limiter):
    """A rate limit that answers by a script."""

    def __init__(self, *waits: timedelta | None, share_per_s: float = 20) -> None:
        self._waits = list(waits)
        self._share_per_s = share_per_s

    @property
    def share_per_s(self) -> float:
        return self._share_per_s

    async def permit(self) -> timedelta | None:
        return self._waits.pop(0) if self._waits else None


@pytest.fixture
def metrics() -> OkaneMetrics:
    return OkaneMetrics(CollectorRegistry())


def gates(metrics: OkaneMetrics, *names: str, rules: BreakerRules = SLOW, **limiters: Limiter) -> ProviderGates:
    return ProviderGates(names or ("p",), metrics=metrics, rules=rules, limiters=limiters, roll=lambda: 0.0)


async def call(gate: ProviderGate, result: LookUpResult, times: int = 1) -> None:
    for _ in range(times):
        assert await gate.permit() is None
        gate.record(result)


async def wait_until_half_open(gate: ProviderGate) -> None:
    async with asyncio.timeout(5):
        while not gate.room():
            await asyncio.sleep(0.005)


def deferred(metrics: OkaneMetrics, reason: str) -> float:
    found = metrics.registry.get_sample_value("okane_provider_deferred_total", {"provider": "p", "reason": reason})
    assert found is not None
    return found


def shown_open(metrics: OkaneMetrics) -> float | None:
    return metrics.registry.get_sample_value("okane_provider_circuit_open", {"provider": "p", "level": "worker"})


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        (Approved("ch_1"), Verdict.GOOD),
        (Authorized("ch_1"), Verdict.GOOD),
        (Pending("pi_1"), Verdict.GOOD),
        (Declined("card_declined"), Verdict.GOOD),
        (NotFound(), Verdict.GOOD),
        (Unknown("another amount", at_once=True), Verdict.GOOD),
        (Unknown("its id comes with the notice", is_neutral=True), Verdict.LIMITED),
        (TIMED_OUT, Verdict.BAD),
        (NO_CONNECTION, Verdict.BAD),
        (Unavailable("429", fault="limit"), Verdict.LIMITED),
        (Unavailable("401", fault="config"), Verdict.REFUSED),
    ],
)
def test_each_result_has_its_verdict(result: LookUpResult, verdict: Verdict) -> None:
    assert verdict_of(result) is verdict


async def test_declines_never_open_it(metrics: OkaneMetrics) -> None:
    gate = gates(metrics).by_name["p"]
    await call(gate, Declined("card_declined"), 100)
    assert gate.may_be_chosen()


async def test_a_closed_gate_holds_nothing_up(metrics: OkaneMetrics) -> None:
    one = gates(metrics)
    assert one.by_name["p"].may_be_chosen()
    assert one.capacity(MOST) == MOST
    assert shown_open(metrics) == 0


async def test_failed_calls_open_it_and_payments_are_put_off(metrics: OkaneMetrics) -> None:
    one = gates(metrics)
    gate = one.by_name["p"]
    await call(gate, NO_CONNECTION, 20)
    assert not gate.may_be_chosen()
    assert one.capacity(MOST) == 0
    wait = await gate.permit()
    assert wait is not None
    assert timedelta(seconds=29) < wait <= timedelta(seconds=30)
    assert deferred(metrics, "circuit_open") == 1
    assert shown_open(metrics) == 1


async def test_with_another_provider_the_worker_goes_on(metrics: OkaneMetrics) -> None:
    one = gates(metrics, "p", "q")
    await call(one.by_name["p"], NO_CONNECTION, 20)
    assert not one.by_name["p"].may_be_chosen()
    assert one.by_name["q"].may_be_chosen()
    assert one.capacity(MOST) == MOST


async def test_half_open_one_claim_a_second_gets_it_and_one_payment_is_in_hand(metrics: OkaneMetrics) -> None:
    one = gates(metrics, rules=QUICK)
    gate = one.by_name["p"]
    await call(gate, NO_CONNECTION, 20)
    await wait_until_half_open(gate)
    assert one.capacity(MOST) == 1
    assert [gate.may_be_chosen() for _ in range(3)] == [True, False, False]
    assert await gate.permit() is None
    assert one.capacity(MOST) == 0, "the probe is under way"
    assert await gate.permit() is not None
    gate.record(Approved("ch_1"))
    assert gate.may_be_chosen()
    assert one.capacity(MOST) == MOST
    assert shown_open(metrics) == 0


async def test_an_offer_that_led_to_no_call_is_made_again(
    metrics: OkaneMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_gate, "OFFER_EVERY_S", 0.02)
    gate = gates(metrics, rules=QUICK).by_name["p"]
    await call(gate, NO_CONNECTION, 20)
    await wait_until_half_open(gate)
    assert gate.may_be_chosen()
    async with asyncio.timeout(5):
        while not gate.may_be_chosen():
            await asyncio.sleep(0.005)


async def test_a_look_up_that_succeeds_closes_it(metrics: OkaneMetrics) -> None:
    gate = gates(metrics, rules=QUICK).by_name["p"]
    await call(gate, NO_CONNECTION, 20)
    await wait_until_half_open(gate)
    gate.record(NotFound())
    assert gate.may_be_chosen()


async def test_a_time_out_from_before_it_closed_is_not_counted(metrics: OkaneMetrics) -> None:
    gate = gates(metrics, rules=QUICK).by_name["p"]
    began_s = time.monotonic()
    await call(gate, NO_CONNECTION, 20)
    await wait_until_half_open(gate)
    await call(gate, Approved("ch_1"))
    for _ in range(50):
        gate.record(TIMED_OUT, took_s=time.monotonic() - began_s)
    assert gate.may_be_chosen()


@pytest.mark.parametrize(
    ("results", "suspect"),
    [
        ([NO_CONNECTION] * 20, False),
        ([*[NO_CONNECTION] * 19, TIMED_OUT], True),
        ([Unavailable("503", retry_after=timedelta(seconds=1))] * 20, True),
        ([Unavailable("401", fault="config")], True),
    ],
)
async def test_it_is_suspect_for_all_only_if_a_byte_was_sent(
    metrics: OkaneMetrics, results: Sequence[LookUpResult], suspect: bool
) -> None:
    one = gates(metrics)
    for result in results:
        await call(one.by_name["p"], result)
    assert one.changed.is_set()
    assert one.by_name["p"].is_suspect is suspect


async def test_a_wrong_key_opens_it_at_once_and_is_counted(metrics: OkaneMetrics) -> None:
    gate = gates(metrics).by_name["p"]
    await call(gate, Unavailable("401", fault="config"))
    assert not gate.may_be_chosen()
    assert deferred(metrics, "config") == 1


async def test_the_providers_own_limit_is_counted_and_opens_nothing(metrics: OkaneMetrics) -> None:
    gate = gates(metrics).by_name["p"]
    await call(gate, Unavailable("429", fault="limit"), 50)
    assert gate.may_be_chosen()
    assert deferred(metrics, "limit") == 50


async def test_a_rate_limit_puts_off_and_bounds_what_is_in_hand(metrics: OkaneMetrics) -> None:
    one = gates(metrics, p=Limit(timedelta(seconds=2), share_per_s=20))
    gate = one.by_name["p"]
    assert one.capacity(MOST) == 10, "half a second's worth"
    assert await gate.permit() == timedelta(seconds=2)
    assert deferred(metrics, "rate_limit") == 1
    assert await gate.permit() is None
    assert one.capacity(MOST) == 11, "the call under way waits for nothing"
    gate.give_back()
    assert one.capacity(MOST) == 10
    assert one.capacity(4) == 4


async def test_a_probe_that_the_rate_limit_puts_off_is_given_back(metrics: OkaneMetrics) -> None:
    limit = Limit(*[None] * 20, timedelta(seconds=2))
    gate = gates(metrics, rules=QUICK, p=limit).by_name["p"]
    await call(gate, NO_CONNECTION, 20)
    await wait_until_half_open(gate)
    assert await gate.permit() == timedelta(seconds=2)
    assert await gate.permit() is None


@pytest.mark.parametrize(("switched_off", "shared_open_s"), [(True, 0.0), (False, 30.0)])
async def test_what_postgres_says_keeps_the_worker_from_reading(
    metrics: OkaneMetrics, switched_off: bool, shared_open_s: float
) -> None:
    one = gates(metrics)
    one.by_name["p"].observe(switched_off=switched_off, shared_open_s=shared_open_s)
    assert one.capacity(MOST) == 0
    one.by_name["p"].observe(switched_off=False, shared_open_s=0.0)
    assert one.capacity(MOST) == MOST
