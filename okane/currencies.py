"""The currencies (ISO 4217, from a library that follows its amendments) and the limits of amounts. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from iso4217 import Currency

# The codes with a number of minor digits, 0 included. Gold, test codes and the like have none, and cannot be charged.
NEW_PAYMENTS = {currency.code: currency for currency in Currency if currency.exponent is not None}
CURRENCIES = frozenset(NEW_PAYMENTS)

# The largest amount of a new payment. JSON parsers that use doubles (JavaScript) change larger ones silently (RFC 7493,
# section 2.2). Payments of earlier versions may have more, up to 2^63-1, the limit of the column.
MAX_AMOUNT_MINOR = 2**53 - 1

_LIMIT = re.compile(r"\s*([A-Z]{3})\s*=\s*([1-9][0-9]{0,18})\s*", re.ASCII)


def parse_limits(value: object) -> object:
    """Parse `EUR=1000000,JPY=500000`: the largest amounts by currency, in minor units. Raises ValueError."""
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


def check_limits(limits: Mapping[str, int] | None) -> Mapping[str, int] | None:
    """Return the limits, or raise ValueError for an unknown currency or an amount that is too large for a payment."""
    if unknown := sorted(set(limits or {}) - CURRENCIES):
        raise ValueError(f"there is no currency {', '.join(unknown)}")
    if larger := sorted(code for code, most in (limits or {}).items() if most > MAX_AMOUNT_MINOR):
        raise ValueError(f"the limit of {', '.join(larger)} must not exceed 2^53-1 ({MAX_AMOUNT_MINOR})")
    return limits


def check_code(code: str) -> str:
    """Return the code, or raise ValueError if new payments cannot use it."""
    if code not in CURRENCIES:
        raise ValueError("must be an ISO 4217 code in capitals, like USD, of a currency that was not withdrawn")
    return code
