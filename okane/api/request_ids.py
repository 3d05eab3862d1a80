"""The id of a request in its answer and in the logs: the client's `X-Request-Id` if it is valid, or a new one."""

from __future__ import annotations

import random
import re

from okane.card_numbers import holds_card_number

_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)


# Seeded by the system once: a system call for each request costs more than to parse its body. An id is a name, not a secret.
# It is not a running number, which would tell each client how many requests the others send.
_dice = random.Random()


def new_id() -> str:
    """Return a new id: 32 hexadecimal digits."""
    return f"{_dice.getrandbits(128):032x}"


def choose_id(sent: str | None) -> str:
    """Return the id of a request with this `X-Request-Id`."""
    if sent is not None and _REQUEST_ID.fullmatch(sent) and not holds_card_number(sent):
        return sent
    return f"{_dice.getrandbits(128):032x}"
