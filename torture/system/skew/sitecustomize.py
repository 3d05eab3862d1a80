"""Shift the wall clock of the process that imports this, by the offset that a file holds at any time.

Found through PYTHONPATH by the interpreter itself, before anything else runs, in the processes that a torture run chooses.
The file that OKANE_TORTURE_CLOCK names holds one double: seconds to add. `time.monotonic` stays as it is.
"""

import datetime
import mmap
import os
import struct
import time
from collections.abc import Callable
from typing import Any

_DOUBLE = struct.Struct("d")


def _install(path: str) -> None:
    with open(path, "rb") as file:  # noqa: PTH123 - as few imports as possible: every process starts with this
        offset = mmap.mmap(file.fileno(), _DOUBLE.size, access=mmap.ACCESS_READ)
    true_time, true_time_ns, true_datetime = time.time, time.time_ns, datetime.datetime

    def skew_s() -> float:
        return float(_DOUBLE.unpack_from(offset)[0])

    def skewed_time() -> float:
        return true_time() + skew_s()

    def skewed_time_ns() -> int:
        return true_time_ns() + int(skew_s() * 1e9)

    class Lookalike(type):
        """Moments made by C code are of the true class; they pass for ours."""

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, true_datetime)

    class SkewedDatetime(true_datetime, metaclass=Lookalike):  # type: ignore[misc, valid-type]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return true_datetime.fromtimestamp(skewed_time(), tz)

        @classmethod
        def utcnow(cls) -> Any:
            return true_datetime.fromtimestamp(skewed_time(), datetime.UTC).replace(tzinfo=None)

    setattr(time, "time", skewed_time)  # noqa: B010 - a plain assignment is what mypy refuses here
    setattr(time, "time_ns", skewed_time_ns)  # noqa: B010 - an assignment would be a type error
    setattr(datetime, "datetime", SkewedDatetime)  # noqa: B010 - an assignment would be a type error
    _skew_ids(skew_s)


def _skew_ids(skew_s: Callable[[], float]) -> None:
    # The ids of payments carry the time, which their maker reads from the system by itself.
    try:
        import uuid_utils  # noqa: PLC0415 - other programs start with this file too
    except ImportError:
        return
    true_uuid7 = uuid_utils.uuid7

    def skewed_uuid7() -> uuid_utils.UUID:
        # RFC 9562: the time in ms comes first.
        return uuid_utils.UUID(int=true_uuid7().int + (int(skew_s() * 1000) << 80))

    setattr(uuid_utils, "uuid7", skewed_uuid7)  # noqa: B010 - an assignment would be a type error


if path := os.environ.get("OKANE_TORTURE_CLOCK"):
    _install(path)
