"""Reads that many tabs share: one at a time for each key, none for longer than a tab's pause, and no error kept."""

from __future__ import annotations

import asyncio

import pytest

from okane.console import shared_reads
from okane.console.shared_reads import SHARED_S, SharedReads


class Reads:
    """Counts its reads, each of which ends when `answers` is set."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.count = 0
        self.error: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()
        self.shared: SharedReads[int] = SharedReads(clock=lambda: self.now_s)

    async def read(self) -> int:
        self.count += 1
        number = self.count
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return number

    async def get(self, key: str = "k") -> int:
        return await self.shared.get(key, self.read)


async def test_tabs_that_ask_at_the_same_time_share_one_read_and_the_next_poll_gets_another() -> None:
    one = Reads()
    one.answers.clear()
    tabs = [asyncio.create_task(one.get()) for _ in range(50)]
    await asyncio.sleep(0)
    one.answers.set()
    assert await asyncio.gather(*tabs) == [1] * 50
    one.now_s += SHARED_S - 0.01
    assert (await one.get(), await one.get("other")) == (1, 2)
    one.now_s += 0.02
    assert await one.get() == 3


async def test_a_tab_that_leaves_ends_the_read_of_no_other() -> None:
    one = Reads()
    one.answers.clear()
    leaving, staying = asyncio.create_task(one.get()), asyncio.create_task(one.get())
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    one.answers.set()
    assert await staying == 1


async def test_an_error_is_passed_on_to_those_that_wait_and_not_kept() -> None:
    one = Reads()
    one.error = OSError("away")
    failed = await asyncio.gather(one.get(), one.get(), return_exceptions=True)
    assert [str(error) for error in failed] == ["away", "away"]
    one.error = None
    assert await one.get() == 2


async def test_few_answers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_reads, "MAX_SHARED", 3)
    one = Reads()
    for key in "abcd":
        await one.get(key)
    assert len(one.shared._shared) == 3
    assert (await one.get("d"), await one.get("a")) == (4, 5)
    one.now_s += SHARED_S
    await one.get("e")
    assert len(one.shared._shared) == 1
