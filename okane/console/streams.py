"""The streams: lanes and consumers, the pending entries of a lane, and the delayed messages."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from uuid import UUID

from aiohttp import web

from okane.console.dead_letter_filter import LANE_NAMES
from okane.console.page_errors import PageError
from okane.console.query_fields import refused, text_of
from okane.console.rendering import render, render_sampled
from okane.console.sampler import Sample, Sampler
from streams import DelayedMessage, Inspector, PendingEntry, StreamStats

PAGE = 100
_ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class ConsumerRow:
    """A consumer over all lanes: its pending entries, and the time since its last read of any."""

    name: str
    pending: int
    idle_s: float


def consumer_rows(stats: StreamStats) -> list[ConsumerRow]:
    """Return the consumers by name."""
    merged: dict[str, ConsumerRow] = {}
    for one in stats.consumers:
        known = merged.get(one.name)
        idle_s = one.idle_ms / 1000
        if known is not None:
            merged[one.name] = ConsumerRow(one.name, known.pending + one.pending, min(known.idle_s, idle_s))
        else:
            merged[one.name] = ConsumerRow(one.name, one.pending, idle_s)
    return [merged[name] for name in sorted(merged)]


def payment_of(body: bytes | None) -> UUID | None:
    """Return the payment that a message is about, None if another program wrote it."""
    return UUID(bytes=body) if body is not None and len(body) == _ID_BYTES else None


class StreamScreens:
    """The pages about streams."""

    def __init__(self, sampler: Sampler, inspector: Inspector) -> None:
        self._sampler = sampler
        self._inspector = inspector

    async def show(self, request: web.Request) -> web.Response:
        """`GET /streams`"""
        sample = await self._sampler.current()
        return render_sampled(request, "streams.html", "streams_part.html", sample, lambda: _context(sample))

    async def pending(self, request: web.Request) -> web.Response:
        """`GET /streams/{lane}/pending`: entries that consumers have read and not acked, the oldest first."""
        lane = request.match_info["lane"]
        if lane not in LANE_NAMES:
            raise PageError(HTTPStatus.NOT_FOUND, "There is no such lane.")
        after = text_of(request.query, "after", longest=50) or None
        entries = await self._page(self._inspector.pending(lane, after=after, count=PAGE + 1))
        shown = entries[:PAGE]
        return render(
            request,
            "pending.html",
            lane=lane,
            after=after,
            rows=[(one, payment_of(one.body)) for one in shown],
            next=shown[-1].id if len(entries) > PAGE else None,
        )

    async def delayed(self, request: web.Request) -> web.Response:
        """`GET /streams/delayed`: messages that wait for their time, the next due first."""
        after = text_of(request.query, "after", longest=50) or None
        try:
            page = await self._inspector.delayed(after=after, count=PAGE)
        except ValueError:
            raise _wrong_place() from None
        return render(
            request,
            "delayed.html",
            after=after,
            rows=[_delayed_row(one, page.now_ms) for one in page.messages],
            next=page.next,
        )

    @staticmethod
    async def _page(reading: Awaitable[Sequence[PendingEntry]]) -> Sequence[PendingEntry]:
        try:
            return await reading
        except ValueError:
            raise _wrong_place() from None


def _context(sample: Sample) -> Mapping[str, Any]:
    stats = sample.observation.stats
    return {
        "sample": sample,
        "stats": stats,
        "lags": {} if stats is None else {one.lane: one.lag for one in stats.lanes},
        "consumers": [] if stats is None else consumer_rows(stats),
        "next_due_s": None if stats is None or stats.next_due_ms is None else (stats.next_due_ms - stats.now_ms) / 1000,
    }


@dataclass(frozen=True, slots=True)
class DelayedRow:
    """A delayed message: when it is due, and in how many seconds."""

    at: datetime
    in_s: float
    lane: str
    attempt: int | None
    payment_id: UUID | None


def _delayed_row(one: DelayedMessage, now_ms: int) -> DelayedRow:
    at = datetime.fromtimestamp(one.due_ms / 1000, UTC)
    return DelayedRow(at, (one.due_ms - now_ms) / 1000, one.lane, one.attempt, payment_of(one.body))


def _wrong_place() -> PageError:
    return refused("after", "is not a place in the list: begin at its first page")
