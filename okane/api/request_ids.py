"""The id under which a request is known in its answer and in the logs: the client's own if it is one, else ours."""

from __future__ import annotations

import re
import secrets

_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)


def new() -> str:
    """An id that nobody has."""
    return secrets.token_hex(16)


def chosen(sent: str | None) -> str:
    """The id of a request that came with this `X-Request-Id`."""
    return sent if sent is not None and _REQUEST_ID.fullmatch(sent) else new()
