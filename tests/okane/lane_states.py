"""States of the lanes, as the sweep sees them."""

from __future__ import annotations

from datetime import timedelta

EMPTY: dict[str, timedelta | None] = {"critical": None, "default": None, "low": None}
