"""Checks the texts of a decision about a payment that needs a review. Pure."""

from __future__ import annotations

from typing import Literal

from okane.card_numbers import holds_card_number, is_issued_card_number
from okane.payment import MAX_REASON, Status

MAX_REF = 255


def find_fault(
    reason: str, provider_ref: str | None, decision: Status
) -> tuple[Literal["reason", "provider_ref"], str] | None:
    """Return the field that is wrong and what is wrong with it, None if the texts can be stored."""
    if fault := find_reason_fault(reason):
        return "reason", fault
    if provider_ref is None:
        return None
    if not _is_text(provider_ref, MAX_REF):
        return "provider_ref", f"must have 1 to {MAX_REF} characters"
    # The gateway chooses it, and some take digits only: it is refused if an issuer has such cards.
    if is_issued_card_number(provider_ref):
        return "provider_ref", "looks like the number of a card"
    if decision is not Status.SUCCESS:
        return "provider_ref", "goes with success only"
    return None


def find_reason_fault(reason: str) -> str | None:
    """Return what is wrong with a reason, None if it can be stored."""
    if not _is_text(reason, MAX_REASON):
        return f"must have 1 to {MAX_REASON} characters"
    return "looks like the number of a card" if holds_card_number(reason) else None


def _is_text(text: str, longest: int) -> bool:
    is_utf8 = not any("\ud800" <= letter <= "\udfff" for letter in text)
    return bool(text.strip()) and len(text) <= longest and "\0" not in text and is_utf8
