"""Faults of the provider's answers, through the mock provider's `PUT /control`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

import aiohttp

from torture.faults.fault import Fault, Made, only
from torture.schedule import Step
from torture.system.cluster import Cluster

_TIMEOUT = aiohttp.ClientTimeout(total=2)
_TRIES = 20
_PROVIDER = only("provider")
_HOLD_S = (0.6, 2.0)


def _behaving(**changes: float | str) -> Made:
    @contextlib.asynccontextmanager
    async def made(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
        before = await control(cluster, changes)
        try:
            yield
        finally:
            await control(cluster, {name: before[name] for name in changes})

    return made


async def control(
    cluster: Cluster, changes: Mapping[str, object], *, program: str = "provider"
) -> Mapping[str, object]:
    """Change the behaviour of a provider and return the previous one. Waits for one that has just died."""
    url = cluster.factory.provider_url if program == "provider" else cluster.factory.gateway_url
    for attempt in range(_TRIES):
        await cluster.programs[program].ready()
        try:
            return await _put(f"{url}/control", changes)
        except (aiohttp.ClientConnectionError, TimeoutError):
            if attempt == _TRIES - 1:
                raise
            await asyncio.sleep(0.1)
    raise AssertionError("it was tried")


async def _put(url: str, changes: Mapping[str, object]) -> Mapping[str, object]:
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as http:
        async with http.get(url) as answer:
            before: Mapping[str, object] = await answer.json()
        async with http.put(url, json=changes) as answer:
            answer.raise_for_status()
        return before


# Not a fault: it keeps payments in flight long enough to kill a process that holds them.
unhurried = _behaving(latency_ms="200-400")

# Weights are relative: 900 of about 1,000.
_MOSTLY = 900

# As long as it takes to give payments up whose first call is still on its way.
_HELD_BACK = Fault(
    name="provider_held_back",
    meaning="charges are held up on their way and made later, and the provider refuses others meanwhile",
    targets=_PROVIDER,
    made=_behaving(held_back=_MOSTLY, unavailable=9 * _MOSTLY, hang_s=9.0),
    hold_s=(5.0, 7.0),
)

PROVIDER_FAULTS = (
    _HELD_BACK,
    *(
        Fault(name=name, meaning=meaning, targets=_PROVIDER, made=made, hold_s=_HOLD_S)
        for name, meaning, made in (
            (
                "provider_time_out_after_charge",
                "the provider charges and does not answer",
                _behaving(timeout_after_charge=_MOSTLY),
            ),
            (
                "provider_time_out_before_charge",
                "the provider neither charges nor answers",
                _behaving(timeout_before_charge=_MOSTLY),
            ),
            ("provider_garbage", "the provider charges and answers garbage", _behaving(garbage=_MOSTLY)),
            (
                "provider_error_500",
                "the provider answers 500, having charged or not",
                _behaving(error_500=_MOSTLY / 2, error_500_after_charge=_MOSTLY / 2),
            ),
            (
                "provider_reset",
                "the provider resets the connection, having charged or not",
                _behaving(reset_before_charge=_MOSTLY / 2, reset_after_charge=_MOSTLY / 2),
            ),
            ("provider_unavailable", "the provider answers 503 and charges nothing", _behaving(unavailable=_MOSTLY)),
            ("provider_rate_limit", "the provider answers 429 and charges nothing", _behaving(rate_limit=_MOSTLY)),
            (
                "provider_slow",
                "the provider takes almost as long as it may, or longer",
                _behaving(latency_ms="300-1200"),
            ),
        )
    ),
)
