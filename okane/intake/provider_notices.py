"""Taking the notices of providers: store each once, make its payment or operation due, then send the wake-up.

A notice decides nothing: the woken claim fetches the outcome from the provider. Once it is stored the provider gets its
200. If the process dies before the wake-up, or Redis does not take it, the sweep finds what is due.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence

from okane.intake.accept import PaymentIntake
from okane.intake.wake_sending import WakeSender
from okane.providers.base import Notice
from okane.providers.redaction import clean_text
from okane.store.provider_events import ProviderEvent, ProviderEventStore, TakeResult
from streams import Draft, Publisher, StreamError, StreamUnavailable
from streams.failpoints import failpoint

MAX_TEXT = 255  # characters of an id or a kind

AFTER_COMMIT = failpoint("notice.after_commit", "a notice is stored, no wake-up sent", raises=StreamUnavailable)


class NoticeIntake:
    """The intake of verified notices. `operations` publishes to the stream of captures, voids and refunds; None: the sweep
    wakes them."""

    def __init__(
        self, *, events: ProviderEventStore, payments: PaymentIntake, operations: Publisher | None = None
    ) -> None:
        self._events = events
        self._payments = payments
        self._operations = None if operations is None else WakeSender(operations, before_send=AFTER_COMMIT)

    async def take(self, provider: str, notices: Sequence[Notice]) -> Sequence[TakeResult]:
        """Store notices of one provider and wake what they are about; return a result for each. Raises StoreUnavailable."""
        if not notices:
            return []
        taken = await self._events.take(provider, [_to_event(one) for one in notices])
        with contextlib.suppress(StreamError):
            if AFTER_COMMIT.armed:
                await AFTER_COMMIT.hit()
            await self._payments.wake_due([one.wake_up for one in taken if one.wake_up is not None])
        operations = [Draft(one.operation.body, lane=one.operation.lane) for one in taken if one.operation is not None]
        if operations and self._operations is not None and self._operations.count_sendable(len(operations)):
            await self._operations.send(operations)
        return [one.result for one in taken]


def _to_event(notice: Notice) -> ProviderEvent:
    """Return the notice as it is stored. A text that no column should hold must not make the provider send it for ever."""
    event_id = notice.event_id if _is_plain(notice.event_id) else _digest(notice.event_id)
    return ProviderEvent(
        event_id=event_id,
        kind=notice.kind if _is_plain(notice.kind) and clean_text(notice.kind) == notice.kind else "other",
        payment_id=notice.payment_id,
        provider_ref=notice.provider_ref if notice.provider_ref and _is_plain(notice.provider_ref) else None,
        provider_key=notice.provider_key if notice.provider_key and _is_plain(notice.provider_key) else None,
        is_refusal=notice.is_refusal,
        operation_id=notice.operation_id,
        dispute_ref=notice.dispute_ref if notice.dispute_ref and _is_plain(notice.dispute_ref) else None,
    )


def _is_plain(text: str) -> bool:
    return len(text) <= MAX_TEXT and text.isascii() and text.isprintable()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
