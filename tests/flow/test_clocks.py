"""An API whose machine's clock is an hour off: what clients say about times is judged by the database's clock."""

from __future__ import annotations

import struct
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest

from okane.client import Client, Invalid, NewPayment
from okane.payment import Status
from tests.flow.system import System
from torture.system.program_factory import SKEW

HALF_AN_HOUR = timedelta(minutes=30)


@pytest.mark.parametrize("skew", [timedelta(hours=1), timedelta(hours=-1)])
async def test_times_are_judged_by_the_databases_clock(system: System, tmp_path: Path, skew: timedelta) -> None:
    clock = tmp_path / "clock"
    clock.write_bytes(struct.pack("d", skew.total_seconds()))
    await system.start_api(PYTHONPATH=str(SKEW), OKANE_TORTURE_CLOCK=str(clock))
    soon, over = datetime.now(UTC) + HALF_AN_HOUR, datetime.now(UTC) - HALF_AN_HOUR
    async with Client(system.url) as client:
        scheduled = (await client.pay(NewPayment(amount=440, idempotency_key=str(uuid4()), execute_at=soon))).payment
        expiring = (await client.pay(NewPayment(amount=440, idempotency_key=str(uuid4()), expires_at=soon))).payment
        plain = NewPayment(amount=440, idempotency_key=str(uuid4()))
        for name, late in (
            ("execute_at", replace(plain, execute_at=over)),
            ("expires_at", replace(plain, expires_at=over)),
        ):
            with pytest.raises(Invalid) as refused:
                await client.pay(late)
            assert [error["pointer"] for error in refused.value.errors] == [f"/{name}"]
        assert (await client.payment(expiring.id)).status is Status.PENDING
    async with aiohttp.ClientSession() as http, http.get(f"{system.url}/v1/payments/{scheduled.id}") as answer:
        assert 1700 < int(answer.headers["Retry-After"]) <= 1800
