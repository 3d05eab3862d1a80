"""The wait that a provider asks for in Retry-After (RFC 9110), within reason."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from okane.http.connection import HttpResponse

# Without a limit, one mistyped header would delay a payment for days.
RETRY_AFTER_CAP = timedelta(hours=1)


def retry_after(answer: HttpResponse, *, now: datetime) -> timedelta | None:
    """Return the wait in an answer's Retry-After. `now` is the reference of a date there if the answer has no Date."""
    if answer.retry_after is None:
        return None
    # The server means its own clock, whose time is in Date.
    return parse_retry_after(answer.retry_after, now=_http_date(answer.date) or now)


def parse_retry_after(value: str | None, *, now: datetime) -> timedelta | None:
    """Parse Retry-After (RFC 9110: seconds or an HTTP date) as a wait of 0 to `RETRY_AFTER_CAP`; None if unreadable."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        # Longer digit strings would overflow timedelta (and int() refuses 4,300 of them).
        return RETRY_AFTER_CAP if len(text) > 9 else min(timedelta(seconds=int(text)), RETRY_AFTER_CAP)
    due = _http_date(text)
    return None if due is None else min(max(due - now, timedelta(0)), RETRY_AFTER_CAP)


def _http_date(text: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text or "")
    except (ValueError, IndexError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
