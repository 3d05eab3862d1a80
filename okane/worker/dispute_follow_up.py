"""The follow-up of notices about disputes: fetch each from its provider, and write it with the event of its payment.

A notice only says that something has changed. A worker that dies before the write leaves the claim, which is due again; one
that dies after it has written everything. Every worker with a provider that has disputes does it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import structlog

from okane.errors import StoreUnavailable
from okane.pausing import pause
from okane.providers.base import DisputeSource, NotFound, ReportedDispute, Unavailable, Unknown
from okane.providers.redaction import clean_text, without_secrets
from okane.store.disputes import DisputeStore, DueFetch, FetchedDispute
from streams.failpoints import failpoint

log = structlog.get_logger("okane.disputes")

MOST_TRIES = 24  # of a dispute that its provider does not have: some 18 hours

BEFORE_WRITE = failpoint("dispute.before_write", "a dispute is fetched, nothing is written")


class DisputeFollowUp:
    """The follow-up of one worker, every `interval`. `sources` are the providers that can be asked, by name."""

    def __init__(self, *, disputes: DisputeStore, sources: Mapping[str, DisputeSource], interval: timedelta) -> None:
        self._disputes = disputes
        self._sources = sources
        self._interval_s = interval.total_seconds()

    async def run(self, stop: asyncio.Event) -> None:
        """Fetch and write until `stop`."""
        while not stop.is_set():
            try:
                await self.run_once()
            except StoreUnavailable as error:  # the connection that was lost has logged it
                log.debug("disputes_interrupted", reason=str(error))
            except Exception:
                log.exception("disputes_failed")  # the next round may succeed
            await pause(self._interval_s, stop)

    async def run_once(self) -> int:
        """Fetch the disputes that are due; return how many were written. Raises StoreUnavailable."""
        due = await self._disputes.claim(self._sources)
        # All at once: each claim lasts a minute at first, longer than a call.
        return sum(await asyncio.gather(*(self._follow_up(one, self._sources[one.provider]) for one in due)))

    async def _follow_up(self, due: DueFetch, source: DisputeSource) -> bool:
        its = log.bind(provider=due.provider, dispute=due.provider_ref)
        fetched = _clean(await source.fetch_dispute(due.provider_ref))
        if BEFORE_WRITE.armed:
            await BEFORE_WRITE.hit()
        match fetched:
            case ReportedDispute(payment_id=payment_id) if payment_id is not None:
                result = await self._disputes.write(due, _to_write(fetched))
                if result.matched and result.event is not None:
                    its.warning(
                        "payment_disputed", payment_id=str(payment_id), outcome=result.event, status=fetched.status
                    )
                elif result.written and not result.matched:
                    its.info("dispute_unmatched", payment_id=str(payment_id))
                return result.matched
            case ReportedDispute():
                if await self._disputes.drop(due):
                    its.info("dispute_unmatched", payment_id=None)
            case NotFound() if due.tries >= MOST_TRIES and await self._disputes.drop(due):
                its.warning("dispute_not_found", tries=due.tries)
            case NotFound():  # with a wrong API key, for example; due again by itself, each time later
                its.warning("dispute_not_fetched", reason="not found")
            case Unavailable(reason=reason) | Unknown(reason=reason):
                its.warning("dispute_not_fetched", reason=reason)
        return False


def _clean(
    fetched: ReportedDispute | NotFound | Unavailable | Unknown,
) -> ReportedDispute | NotFound | Unavailable | Unknown:
    """Return what a provider says without secrets and card numbers."""
    if not isinstance(fetched, ReportedDispute):
        return without_secrets(fetched)
    return replace(fetched, reason=None if fetched.reason is None else clean_text(fetched.reason))


def _to_write(reported: ReportedDispute) -> FetchedDispute:
    assert reported.payment_id is not None
    return FetchedDispute(
        reported.payment_id,
        reported.amount_minor,
        reported.currency,
        reported.status,
        reported.reason,
        reported.due_by,
    )
