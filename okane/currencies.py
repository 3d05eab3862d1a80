"""Which currencies there are (ISO 4217, from a library that follows its amendments), and what may be paid in each. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from iso4217 import Currency

# Those that have minor units, or say that they have none. Gold, test codes and the like are no money to charge.
NEW_PAYMENTS = {currency.code: currency for currency in Currency if currency.exponent is not None}
CURRENCIES = frozenset(NEW_PAYMENTS)

# The largest amount of a new payment. JSON readers that keep numbers as doubles (JavaScript) change larger ones silently
# (RFC 7493, section 2.2). Payments of earlier versions may have more, up to the column's 2^63-1.
MAX_AMOUNT_MINOR = 2**53 - 1

_LIMIT = re.compile(r"\s*([A-Z]{3})\s*=\s*([1-9][0-9]{0,18})\s*", re.ASCII)


def parse_limits(value: object) -> object:
    """`EUR=1000000,JPY=500000`: the largest amount by currency, in minor units. Raises ValueError."""
    if not isinstance(value, str):
        return value
    limits: dict[str, int] = {}
    for part in value.split(","):
        match = _LIMIT.fullmatch(part)
        if match is None:
            raise ValueError("must look like EUR=1000000,JPY=500000: the largest amounts, in minor units")
        if match[1] in limits:
            raise ValueError(f"names {match[1]} twice")
        limits[match[1]] = int(match[2])
    return limits


def check(limits: Mapping[str, int] | None) -> Mapping[str, int] | None:
    """These limits, each of a currency that there is, and of an amount that can be paid. Raises ValueError."""
    if unknown := sorted(set(limits or {}) - CURRENCIES):
        raise ValueError(f"there is no currency {', '.join(unknown)}")
    if larger := sorted(code for code, most in (limits or {}).items() if most > MAX_AMOUNT_MINOR):
        raise ValueError(f"the limit of {', '.join(larger)} must not exceed 2^53-1 ({MAX_AMOUNT_MINOR})")
    return limits


def check_code(code: str) -> str:
    """This code, if new payments may be in it. Raises ValueError."""
    if code not in CURRENCIES:
        raise ValueError("must be an ISO 4217 code in capitals, like USD, of a currency that was not withdrawn")
    return code
