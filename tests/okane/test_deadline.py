from __future__ import annotations

import asyncio

import pytest

from okane.deadline import Deadline

FAR_S = 60.0


async def test_a_block_in_time_is_left_alone() -> None:
    with Deadline(FAR_S):
        await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_block_that_takes_too_long_times_out() -> None:
    with pytest.raises(TimeoutError), Deadline(0.01):
        await asyncio.Event().wait()
    await asyncio.sleep(0)  # the task is not cancelled any more


async def test_of_two_deadlines_the_one_that_is_met_counts() -> None:
    with Deadline(FAR_S):
        with pytest.raises(TimeoutError), Deadline(0.01):
            await asyncio.Event().wait()
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError), Deadline(0.01), Deadline(FAR_S):
        await asyncio.Event().wait()


async def test_an_error_of_the_block_stays_what_it_is() -> None:
    with pytest.raises(LookupError), Deadline(FAR_S):
        raise LookupError


async def test_cancelling_is_no_timeout() -> None:
    async def wait(delay_s: float) -> None:
        with Deadline(delay_s):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait(FAR_S))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_whoever_is_cancelled_and_late_is_cancelled() -> None:
    async def wait() -> None:
        with Deadline(0.01) as _:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                task.cancel()  # by another task, at the same moment
                raise

    task = asyncio.create_task(wait())
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_deadline_needs_a_task() -> None:
    failed = asyncio.get_running_loop().create_future()

    def outside() -> None:
        try:
            with Deadline(FAR_S):
                pass
        except RuntimeError as error:
            failed.set_result(error)

    asyncio.get_running_loop().call_soon(outside)
    assert isinstance(await failed, RuntimeError)
