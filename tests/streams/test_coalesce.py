from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Sequence

import pytest

from streams import Batcher, Coalescer


class Gate:
    """A flush that records its batches and waits to be released; it returns each number doubled."""

    def __init__(self, *, is_open: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()
        self.entered = asyncio.Event()
        self.at_once = self.most_at_once = 0
        if is_open:
            self.open.set()

    async def __call__(self, items: Sequence[int]) -> Sequence[int | BaseException]:
        self.batches.append(list(items))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.entered.set()
        await self.open.wait()
        self.at_once -= 1
        return [item * 2 for item in items]


async def test_a_lone_caller_is_flushed_at_once() -> None:
    gate = Gate(is_open=True)
    assert await Coalescer(gate).submit(21) == 42
    assert gate.batches == [[21]]


async def test_callers_of_the_same_turn_share_a_batch() -> None:
    gate = Gate(is_open=True)
    coalescer = Coalescer(gate)
    assert await asyncio.gather(*map(coalescer.submit, range(5))) == [0, 2, 4, 6, 8]
    assert gate.batches == [[0, 1, 2, 3, 4]]


async def test_what_arrives_in_flight_goes_out_together_next_and_in_order() -> None:
    gate = Gate()
    coalescer = Coalescer(gate)
    first = coalescer.submit(0)
    await gate.entered.wait()
    rest = [coalescer.submit(number) for number in range(1, 8)]
    gate.open.set()
    assert await first == 0
    assert [await each for each in rest] == [2, 4, 6, 8, 10, 12, 14]
    assert gate.batches == [[0], [1, 2, 3, 4, 5, 6, 7]]
    assert gate.most_at_once == 1


async def test_no_batch_is_larger_than_max_batch() -> None:
    gate = Gate(is_open=True)
    sizes: list[int] = []
    coalescer = Coalescer(gate, max_batch=3, on_batch=sizes.append)
    await asyncio.gather(*map(coalescer.submit, range(8)))
    assert gate.batches == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert sizes == [3, 3, 2]


class Staged:
    """A flush of two parts. The first is done one after the other, and let through by hand; the others need not wait for
    the second, which waits until it is let through, too."""

    def __init__(self) -> None:
        self.batcher: Batcher[int] = Batcher(self._flush)
        self.first, self.second, self.done = [list[list[int]]() for _ in range(3)]
        self.let_first, self.let_second = asyncio.Semaphore(0), asyncio.Event()

    async def _flush(self, batch: list[int]) -> None:
        self.first.append(batch)
        await self.let_first.acquire()
        self.batcher.release()
        self.batcher.release()  # is done once
        self.second.append(batch)
        await self.let_second.wait()
        self.done.append(batch)


async def _turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_the_next_batch_leaves_when_the_one_before_gives_up_its_turn() -> None:
    staged = Staged()
    for number in range(6):
        staged.batcher.add(number)
        if number % 2:
            await _turns()
    assert (staged.first, staged.second) == ([[0, 1]], [])
    staged.let_first.release()
    await _turns()
    assert (staged.first, staged.second) == ([[0, 1], [2, 3, 4, 5]], [[0, 1]])
    staged.let_first.release()
    await _turns()
    staged.batcher.add(6)  # no flush holds the turn: it leaves at once
    await _turns()
    assert staged.first == [[0, 1], [2, 3, 4, 5], [6]]
    staged.let_first.release()
    closing = asyncio.ensure_future(staged.batcher.aclose())
    await _turns()
    assert (staged.done, closing.done()) == ([], False)
    staged.let_second.set()
    await closing
    assert staged.done == [[0, 1], [2, 3, 4, 5], [6]]


async def test_what_is_abandoned_after_its_turn_is_cancelled_too() -> None:
    staged = Staged()
    staged.batcher.add(1)
    staged.let_first.release()
    await _turns()
    staged.batcher.add(2)
    await _turns()
    assert (staged.first, staged.second) == ([[1], [2]], [[1]])
    await staged.batcher.abandon()
    await staged.batcher.idle()
    staged.let_first.release()
    staged.let_second.set()
    await _turns()
    assert staged.done == []


async def test_only_the_flush_itself_gives_up_its_turn() -> None:
    staged = Staged()
    with staged.batcher.hold_turn():
        staged.batcher.release()
        with staged.batcher.hold_turn() as is_ours:
            assert not is_ours
    staged.batcher.add(1)
    await _turns()
    staged.batcher.add(2)
    staged.batcher.release()
    await _turns()
    assert staged.first == [[1]]
    await staged.batcher.abandon()


async def test_a_caller_cancelled_in_flight_does_not_disturb_the_others() -> None:
    gate = Gate()
    coalescer = Coalescer(gate)
    futures = [coalescer.submit(number) for number in range(3)]
    await gate.entered.wait()
    futures[1].cancel()
    gate.open.set()
    assert await futures[0] == 0
    assert await futures[2] == 4
    assert gate.batches == [[0, 1, 2]]


async def test_a_caller_cancelled_before_its_batch_is_never_sent() -> None:
    gate = Gate()
    coalescer = Coalescer(gate)
    first = coalescer.submit(0)
    await gate.entered.wait()
    withdrawn, stays = coalescer.submit(1), coalescer.submit(2)
    withdrawn.cancel()
    gate.open.set()
    assert (await first, await stays) == (0, 4)
    assert gate.batches == [[0], [2]]


async def test_cancelling_the_task_that_waits_withdraws_its_item_too() -> None:
    gate = Gate()
    coalescer = Coalescer(gate)
    first = coalescer.submit(0)
    await gate.entered.wait()

    async def caller() -> int:
        return await coalescer.submit(1)

    task = asyncio.create_task(caller())
    await asyncio.sleep(0)
    task.cancel()
    gate.open.set()
    await first
    await coalescer.aclose()
    assert task.cancelled()
    assert gate.batches == [[0]]


async def test_an_exception_among_the_results_is_its_callers_alone() -> None:
    async def flush(items: Sequence[int]) -> Sequence[int | BaseException]:
        return [ValueError("odd") if item % 2 else item for item in items]

    coalescer = Coalescer(flush)
    answers = await asyncio.gather(*map(coalescer.submit, range(4)), return_exceptions=True)
    assert answers[0::2] == [0, 2]
    assert all(isinstance(answer, ValueError) for answer in answers[1::2])


async def test_many_are_answered_together_each_in_its_place() -> None:
    batches: list[list[int]] = []

    async def flush(items: Sequence[int]) -> Sequence[int | BaseException]:
        batches.append(list(items))
        return [ValueError("odd") if item % 2 else item * 2 for item in items]

    coalescer = Coalescer(flush, max_batch=4)
    first = coalescer.submit(8)  # what is queued goes first
    answers, one, none = await asyncio.gather(
        coalescer.submit_many(range(5)), coalescer.submit(6), coalescer.submit_many([])
    )
    assert [answers[0], answers[2], answers[4]] == [0, 4, 8]
    assert all(isinstance(answers[odd], ValueError) for odd in (1, 3))
    assert (await first, one, none) == (16, 12, [])
    assert [item for batch in batches for item in batch] == [8, 6, 0, 1, 2, 3, 4]
    assert max(map(len, batches)) == 4


async def test_many_that_find_nothing_in_flight_go_out_at_once_in_their_callers_task() -> None:
    tasks = []

    async def flush(items: Sequence[int]) -> Sequence[int]:
        tasks.append(asyncio.current_task())
        return [item * 2 for item in items]

    coalescer = Coalescer(flush, max_batch=2)
    alone, queued = coalescer.submit_many([1, 2, 3]), coalescer.submit_many([4])
    caller = asyncio.ensure_future(alone)
    behind = asyncio.ensure_future(queued)
    assert (await caller, await behind) == ([2, 4, 6], [8])
    assert tasks[:2] == [caller, caller]


async def test_what_comes_while_many_travel_waits_for_them() -> None:
    gate = Gate()
    coalescer = Coalescer(gate)
    many = asyncio.ensure_future(coalescer.submit_many([1, 2]))
    await gate.entered.wait()
    later, more = coalescer.submit(3), asyncio.ensure_future(coalescer.submit_many([4, 5]))
    closing = asyncio.ensure_future(coalescer.aclose())
    for _ in range(5):
        await asyncio.sleep(0)
    assert (gate.batches, closing.done()) == ([[1, 2]], False)
    gate.open.set()
    assert (await many, await later, await more) == ([2, 4], 6, [8, 10])
    await closing
    assert gate.batches == [[1, 2], [3, 4, 5]]
    assert gate.most_at_once == 1
    with pytest.raises(RuntimeError, match="closed"):
        await coalescer.submit_many([6])


async def test_a_cancelled_caller_of_many_items_holds_up_no_other() -> None:
    gate = Gate()
    coalescer = Coalescer(gate)
    many = asyncio.ensure_future(coalescer.submit_many([1, 2]))
    await gate.entered.wait()
    later = coalescer.submit(3)
    many.cancel()
    gate.open.set()
    assert await later == 6
    assert many.cancelled()
    assert gate.batches == [[1, 2], [3]]


async def test_many_whose_caller_is_gone_before_their_turn_are_withdrawn() -> None:
    gate = Gate()
    coalescer = Coalescer(gate)
    first = coalescer.submit(0)
    await gate.entered.wait()
    many = asyncio.ensure_future(coalescer.submit_many([1, 2]))
    await asyncio.sleep(0)
    many.cancel()
    gate.open.set()
    assert (await first, await coalescer.submit(3)) == (0, 6)
    assert gate.batches == [[0], [3]]


async def test_what_is_lent_is_its_borrowers_to_end() -> None:
    async def flush(_batch: list[int]) -> None:
        raise AssertionError("nothing was added")

    batcher = Batcher(flush)
    with batcher.hold_turn() as mine:
        assert mine
        with batcher.hold_turn() as yours:
            assert not yours
        idle = asyncio.ensure_future(batcher.idle())
        await batcher.abandon()
        assert not idle.done()
    await idle
    with batcher.hold_turn() as closed:
        assert not closed


async def test_what_is_abandoned_is_cancelled_and_what_waits_is_forgotten() -> None:
    flushed: list[list[int]] = []

    async def flush(batch: list[int]) -> None:
        flushed.append(batch)
        await asyncio.Event().wait()

    batcher = Batcher(flush, max_batch=1)
    batcher.add(1)
    batcher.add(2)
    while not flushed:
        await asyncio.sleep(0)
    await batcher.abandon()
    await batcher.idle()
    assert flushed == [[1]]
    with pytest.raises(RuntimeError):
        batcher.add(3)


async def test_an_exception_of_flush_goes_to_its_batch_and_the_next_batch_works() -> None:
    failures = iter([OSError("server gone")])

    async def flush(items: Sequence[int]) -> Sequence[int | BaseException]:
        for failure in failures:
            raise failure
        return list(items)

    coalescer = Coalescer(flush)
    answers = await asyncio.gather(coalescer.submit(1), coalescer.submit(2), return_exceptions=True)
    assert all(isinstance(answer, OSError) for answer in answers)
    assert await coalescer.submit(3) == 3


async def test_a_flush_that_answers_too_little_is_a_bug_and_raised() -> None:
    async def flush(items: Sequence[int]) -> Sequence[int | BaseException]:
        return list(items[1:])

    coalescer = Coalescer(flush)
    answers = await asyncio.gather(coalescer.submit(1), coalescer.submit(2), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["a bug in flush: 1 results for 2 items"] * 2


async def test_closing_answers_what_was_taken_and_takes_no_more() -> None:
    gate = Gate()
    coalescer = Coalescer(gate, max_batch=1)
    futures = [coalescer.submit(number) for number in range(3)]
    closing = asyncio.create_task(coalescer.aclose())
    await gate.entered.wait()
    with pytest.raises(RuntimeError, match="closed"):
        coalescer.submit(9)
    assert not closing.done()
    gate.open.set()
    await closing
    assert [future.result() for future in futures] == [0, 2, 4]


async def test_a_cancelled_flush_cancels_its_callers_and_not_those_behind() -> None:
    entered = asyncio.Event()
    batches: list[list[int]] = []

    async def flush(items: Sequence[int]) -> Sequence[int | BaseException]:
        batches.append(list(items))
        if len(batches) == 1:
            entered.set()
            raise asyncio.CancelledError
        return list(items)

    coalescer = Coalescer(flush, max_batch=1)
    first, second = coalescer.submit(1), coalescer.submit(2)
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await second == 2


async def test_no_task_is_made_per_item() -> None:
    gate = Gate()
    coalescer = Coalescer(gate)
    before = len(asyncio.all_tasks())
    futures = [coalescer.submit(number) for number in range(100)]
    await gate.entered.wait()
    assert len(asyncio.all_tasks()) == before + 1
    gate.open.set()
    await asyncio.gather(*futures)


def test_a_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Coalescer(Gate(), max_batch=0)


async def test_a_flush_runs_in_the_context_of_no_caller() -> None:
    """The context variables of one caller, such as a request's id for the logs, do not reach the others of its batch."""
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")
    seen: list[str] = []

    async def flush(items: Sequence[int]) -> Sequence[int]:
        seen.append(request.get())
        return items

    coalescer: Coalescer[int, int] = Coalescer(flush)
    request.set("mine")
    assert await coalescer.submit(1) == 1
    assert seen == ["none"]
