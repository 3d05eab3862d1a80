"""The id under which a request is known in its answer and in the logs: the client's own if it is one, else ours."""

from __future__ import annotations

import itertools
import re
import secrets

_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)


# Random once: to ask the system for every request costs more than to read its body.
_PROCESS = secrets.token_hex(8)
_numbers = itertools.count()


def new() -> str:
    """An id that nobody has: 32 hexadecimal digits, those of this process first."""
    return f"{_PROCESS}{next(_numbers):016x}"


def chosen(sent: str | None) -> str:
    """The id of a request that came with this `X-Request-Id`."""
    return sent if sent is not None and _REQUEST_ID.fullmatch(sent) else new()
