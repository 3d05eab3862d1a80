"""A deadline for a block: the part of `asyncio.timeout` that a request needs, at half of its cost.

Every request sets two deadlines, and hardly any passes.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class Deadline:
    """Raise TimeoutError if the block takes longer: `with Deadline(delay_s):`, inside a task, once per instance."""

    __slots__ = ("_cancels", "_delay_s", "_is_over", "_task", "_timer")

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline needs a task to end")
        self._task = task
        self._cancels = task.cancelling()  # requests to cancel from before the block
        self._is_over = False
        self._timer = task.get_loop().call_later(self._delay_s, self._end)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        # Another task may have cancelled this one meanwhile: that must stay a cancellation.
        if self._is_over and self._task.uncancel() <= self._cancels and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _end(self) -> None:
        self._is_over = True
        self._task.cancel()
