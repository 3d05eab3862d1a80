"""A connection whose process dies before a statement."""

from __future__ import annotations

from typing import Any

import psycopg


class Killed(BaseException):
    """The process dies: it repairs nothing."""


class Mortal(psycopg.Connection[tuple[Any, ...]]):
    """Dies before its statement number `left`, counted from 0; the statements of its cursors do not count. -1: never."""

    left = -1

    def execute(self, *arguments: Any, **more: Any) -> Any:
        if self.left == 0:
            self.close()
            raise Killed
        self.left -= 1
        return super().execute(*arguments, **more)
