"""A deadline for a block: `asyncio.timeout` at half its price, without what only few need of it.

Every request has two deadlines, and hardly any is ever met.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class Deadline:
    """`with Deadline(delay_s):` raises TimeoutError if the block takes longer. Inside of a task, and once."""

    __slots__ = ("_cancels", "_delay_s", "_met", "_task", "_timer")

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline needs a task to end")
        self._task = task
        self._cancels = task.cancelling()  # by others, before us
        self._met = False
        self._timer = task.get_loop().call_later(self._delay_s, self._meet)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        # Somebody else may have cancelled the task meanwhile: that is not ours to turn into a timeout.
        if self._met and self._task.uncancel() <= self._cancels and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _meet(self) -> None:
        self._met = True
        self._task.cancel()
