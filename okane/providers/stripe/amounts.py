"""The amounts of Stripe's API, which differ from ISO 4217's minor units in three currencies. Pure."""

from __future__ import annotations

# ISO 4217 gives these no minor unit, and Stripe two digits that must be 00.
_HUNDREDFOLD = frozenset({"ISK", "UGX"})
# ISO 4217 gives the ariary two digits (a fifth is its iraimbilanja), and Stripe none: 500 would be 500 ariary, not five.
_HUNDREDTH = frozenset({"MGA"})


def stripe_amount(amount_minor: int, currency: str) -> int | None:
    """Return an amount in minor units of ISO 4217 as Stripe counts it, or None if Stripe cannot express it."""
    if currency in _HUNDREDFOLD:
        return amount_minor * 100
    if currency in _HUNDREDTH:
        return None if amount_minor % 100 else amount_minor // 100
    return amount_minor


def minor_amount(amount: int, currency: str) -> int:
    """Return an amount of Stripe's in minor units of ISO 4217: the reverse of `stripe_amount`."""
    if currency in _HUNDREDFOLD:
        return amount // 100
    return amount * 100 if currency in _HUNDREDTH else amount
