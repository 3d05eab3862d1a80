"""The state of webhooks as `okane status` and `okane top` show it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from okane.duration_text import format_duration
from okane.metrics import ENDPOINT_STATES
from okane.store.webhook_overview import WebhookOverview


def to_json(overview: WebhookOverview) -> dict[str, Any]:
    """Return the figures as `--json` prints them, by the state of the endpoints."""
    return {
        "outbox_changes": overview.outbox_changes,
        "outbox_oldest_s": overview.outbox_oldest.total_seconds(),
        "unowned": overview.unowned,
        **{
            name: {
                "endpoints": overview.states[name].endpoints,
                "backlog": overview.states[name].backlog,
                "oldest_s": overview.states[name].oldest.total_seconds(),
            }
            for name in ENDPOINT_STATES
        },
    }


def in_trouble(overview: WebhookOverview) -> bool:
    """Return True if an operator should look: an endpoint fails or was disabled, or no dispatcher works."""
    return bool(overview.unowned or overview.states["failing"].endpoints or overview.states["disabled"].endpoints)


def line(overview: WebhookOverview, *, delivered_per_s: float | None = None) -> str:
    """Return the state in one line of 80 columns at most, as long as its figures are not extreme."""
    healthy, failing, disabled = (overview.states[name] for name in ("healthy", "failing", "disabled"))
    enabled, oldest = healthy.endpoints + failing.endpoints, max(healthy.oldest, failing.oldest)
    every = enabled + disabled.endpoints
    parts = [f"webhooks {every:,} endpoint{'' if every == 1 else 's'}"]
    # Trouble first: a narrow terminal cuts the end of the line.
    if overview.unowned:
        parts.append("no dispatcher" if overview.unowned >= enabled else f"{overview.unowned:,} unowned")
    if failing.endpoints:
        parts.append(f"{failing.endpoints:,} failing")
    if disabled.endpoints:
        parts.append(f"{disabled.endpoints:,} disabled")
    if delivered_per_s is not None:
        parts.append(f"{delivered_per_s:,.0f}/s")
    age = f", oldest {format_duration(oldest)}" if oldest > timedelta(0) else ""
    parts.append(f"backlog {healthy.backlog + failing.backlog:,}{age}")
    if overview.outbox_changes:
        parts.append(f"outbox {overview.outbox_changes:,}")
    return "  ".join(parts)
