"""Payment ids as texts: okane's spelling (a UUID) and the older queue's (`pay_` and 32 digits)."""

from __future__ import annotations

import re
from uuid import UUID

PATTERN = r"(pay_)?([0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})"
_ID = re.compile(PATTERN)


def parse_id(text: str) -> UUID | None:
    """Return the id that a text spells, or None. (`UUID` itself accepts braces, a urn, and any script's digits.)"""
    return UUID(text.removeprefix("pay_")) if _ID.fullmatch(text) else None
