from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from streams import StreamUnavailable, failpoints
from streams.failpoints import Failpoint, FailpointRaised, failpoint


@pytest.fixture
def point(monkeypatch: pytest.MonkeyPatch) -> Iterator[Failpoint]:
    monkeypatch.setattr(failpoints, "_declared", {})
    yield failpoint("test.here", "a place in a test")
    failpoints.disarm_all()


async def test_an_unarmed_point_does_nothing(point: Failpoint) -> None:
    await point.hit()
    assert not point.armed
    assert point.hits == 0


async def test_it_raises_at_the_chosen_hit(point: Failpoint) -> None:
    failpoints.arm("test.here:raise:3")
    await point.hit()
    await point.hit()
    with pytest.raises(FailpointRaised, match=r"test\.here"):
        await point.hit()
    await point.hit()  # once only


async def test_it_raises_at_every_hit_with_a_star(point: Failpoint) -> None:
    failpoints.arm("test.here:raise:*")
    for _ in range(3):
        with pytest.raises(FailpointRaised):
            await point.hit()


async def test_it_raises_what_the_place_would(point: Failpoint) -> None:
    other = failpoint("test.there", "another", raises=StreamUnavailable)
    failpoints.arm("test.here:raise:9, test.there:raise")
    await point.hit()
    with pytest.raises(StreamUnavailable):
        await other.hit()


async def test_it_waits(point: Failpoint) -> None:
    failpoints.arm("test.here:delay=0.01")
    async with asyncio.timeout(10):
        await point.hit()
    failpoints.arm("test.here:delay=60")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await point.hit()


@pytest.mark.parametrize(
    "spec",
    ["", "test.here", "test.here:burn", "test.here:kill:0", "test.here:kill=3", "no.such:kill", "test.here:kill:x"],
)
def test_what_cannot_be_armed_is_refused_and_nothing_is(point: Failpoint, spec: str) -> None:
    with pytest.raises(ValueError, match="failpoint") as refused:
        failpoints.arm(f"test.here:raise,{spec}")
    assert not spec or spec not in str(refused.value)  # a setting's value, which no message repeats
    assert not point.armed


def test_two_places_cannot_share_a_name(point: Failpoint) -> None:
    with pytest.raises(ValueError, match="twice"):
        failpoint(point.name, "again")


@pytest.mark.parametrize(("action", "number"), [("kill", signal.SIGKILL), ("stop", signal.SIGSTOP)])
def test_it_ends_or_stops_its_process(action: str, number: signal.Signals) -> None:
    code = f"""
import asyncio, os
from streams.failpoints import arm, failpoint
point = failpoint("test.here", "")
arm("test.here:{action}")
asyncio.run(point.hit())
os._exit(7)  # only after SIGCONT
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        if number == signal.SIGKILL:
            assert process.wait(60) == -number
        else:
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            process.send_signal(signal.SIGCONT)
            assert process.wait(60) == 7
    finally:
        process.kill()
        process.wait()
