"""The id under which a request is known in its answer and in the logs: the client's own if it is one, else ours."""

from __future__ import annotations

import random
import re

_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)


# Seeded by the system once: to ask it for every request costs more than to read its body. An id is a name, not a secret; and
# no number in a row, which would tell each client how much the others ask.
_dice = random.Random()


def new_id() -> str:
    """An id that nobody has: 32 hexadecimal digits."""
    return f"{_dice.getrandbits(128):032x}"


def choose_id(sent: str | None) -> str:
    """The id of a request that came with this `X-Request-Id`."""
    return sent if sent is not None and _REQUEST_ID.fullmatch(sent) else new_id()
