"""Stripe's decline codes by kind: a soft decline may pass with the same card later, or at another provider. Pure.

From Stripe's page on decline codes: soft are the codes of an issuer that could not decide, that gave no reason, or that
applied a limit in time. All others are hard, unknown ones too.
"""

from __future__ import annotations

SOFT_DECLINES = frozenset(
    {
        "approve_with_id",
        "call_issuer",
        "card_velocity_exceeded",
        "do_not_honor",
        "generic_decline",
        "insufficient_funds",
        "issuer_not_available",
        "no_action_taken",
        "processing_error",
        "reenter_transaction",
        "try_again_later",
        "withdrawal_count_limit_exceeded",
    }
)


def is_soft(code: str, advice: object) -> bool:
    """Return True for a soft decline. The card network's `advice` (Stripe's advice_code) takes precedence."""
    if advice == "do_not_try_again":
        return False
    return advice == "try_again_later" or code in SOFT_DECLINES
