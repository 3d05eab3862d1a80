"""Amounts as people write them, in the units of a currency: `1,234.50`. Pure. (`formats.money` writes them.)"""

from __future__ import annotations

import re

from okane.console.formats import DIGITS

_AMOUNT = re.compile(r"([0-9]{1,16}|[0-9]{1,3}(?:,[0-9]{3}){1,5})(?:\.([0-9]{1,4}))?", re.ASCII)


def parse_amount(text: str, currency: str) -> int | None:
    """Return an amount in minor units, None if the text is no amount of the currency.

    Earlier payments may have a currency whose digits are unknown: then the amount is in minor units.
    """
    match, digits = _AMOUNT.fullmatch(text), DIGITS.get(currency, 0)
    if match is None or len(match[2] or "") > digits:
        return None
    return int(match[1].replace(",", "") + (match[2] or "").ljust(digits, "0"))


def example_of(currency: str) -> str:
    """Return how an amount of the currency looks."""
    digits = DIGITS.get(currency, 0)
    return f"1,234.{'5' * digits}" if digits else "1,234"
